"""Measures a clip from file to file against the network alone, and its flicker.

    python benchmarks/video.py speed CLIP [--weights NAME|FILE] [--seconds 2]
    python benchmarks/video.py flicker CLIP... [--weights NAME|FILE] [--frames 12]
    python benchmarks/video.py static CLIP|PHOTO... [--weights NAME|FILE] [--frames 12]
    python benchmarks/video.py neighbours PAIRS... [--weights NAME|FILE]

`speed` restores the first seconds of CLIP, first in memory with nothing but the network, then
from file to file with audio and all, in turns, and prints both rates and their ratio: the aim is
0.85. On a machine that is busy with other things only the network's share of the CPU time means
something: where the network alone keeps all cores busy, the ratio is about that.

`flicker` prints what `benchmarks/flicker.py` measures, before encoding: the aim is 1.10.

`static` prints how many blocks change though the input stands still, one by one, and as written,
steadied by `deblurcli/io/videos/neighbours.py`: the aim is at most 1 % that change by over a level
more than the input. A photo of stripes, a grid or a facade becomes a clip of a camera that stands
still, with noise (σ = 1.5) in each frame; and one of a camera that trembles by 0.1 px.

`neighbours` takes folders of real pairs (GOPRO, REDS) whose frames have numbers. It prints the mean
PSNR of the blurred frames, of those restored one by one, of those averaged with their neighbours
(`deblurcli/io/videos/neighbours.py`), the least gain of a frame, and what averaging adds to the
network's processor time. Where frames lie further apart than the nearest two, it takes a cut.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from flicker import measure, measure_static
from numpy.typing import NDArray
from scipy import ndimage

from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture
from deblurcli.deblurrer import Deblurrer
from deblurcli.evaluation.metrics import psnr
from deblurcli.io.videos import restore_video
from deblurcli.io.videos.neighbours import Restore, RestoredFrame, Steadier, average

_Frame = NDArray[Any]


def _decode(clip: Path) -> Iterator[_Frame]:
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


class _Watch:
    """Takes wall clock and CPU time."""

    def __enter__(self) -> _Watch:
        self.seconds, self.cpu_seconds = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu_seconds += time.process_time()


def measure_speed(clip: Path, deblurrer: Deblurrer, seconds: float, rounds: int) -> None:
    """Prints frames per second of the network, of the whole, and the ratio, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "out.mp4")
        count = restore_video(clip, target, lambda pixels: pixels, end=seconds).frame_count
        frames = list(islice(_decode(clip), count))
        deblurrer.restore(frames[0])  # the first one also warms up
        ratios, shares = [], []
        for _ in range(rounds):
            with _Watch() as alone:
                for frame in frames:
                    deblurrer.restore(frame)
            with _Watch() as whole:
                restore_video(clip, target, deblurrer.restore, end=seconds, overwrite=True)
            ratios.append(alone.seconds / whole.seconds)
            shares.append(alone.cpu_seconds / whole.cpu_seconds)
            print(
                f"network alone {count / alone.seconds:.2f} fps, "
                f"file to file {count / whole.seconds:.2f} fps: {ratios[-1]:.3f}"
            )
        print(
            f"median ratio {median(ratios):.3f} over {count} frames, {rounds} rounds; "
            f"the network's share of CPU time {median(shares):.3f}"
        )


def measure_flicker(clip: Path, deblurrer: Deblurrer, frames: int) -> None:
    """Prints the flicker of a restored clip against that of its input."""
    blurred = list(islice(_decode(clip), frames))
    for what, shown in restore_clip(blurred, deblurrer).items():
        flicker = measure(blurred, shown)
        print(
            f"{clip.name}, {what}: brightness {flicker.brightness:.3f}, "
            f"detail {flicker.detail:.3f}, sharpness {flicker.sharpness:.3f}, "
            f"followed {flicker.followed:.0%}, {'passes' if flicker.passes() else 'FAILS'}"
        )


def as_written(blurred: Iterable[_Frame], restore: Restore) -> list[_Frame]:
    """Frames of a clip, restored, steadied and averaged with their neighbours."""
    steadier = Steadier(restore)
    frames = [None, *(RestoredFrame(frame, steadier(frame)) for frame in blurred), None]
    return list(map(average, frames[1:-1], frames[:-2], frames[2:]))


def restore_clip(blurred: list[_Frame], deblurrer: Deblurrer) -> dict[str, list[_Frame]]:
    """The frames restored one by one, and as they are written."""
    restored = [deblurrer.restore(frame) for frame in blurred]
    made = iter(restored)
    return {"one by one": restored, "as written": as_written(blurred, lambda _: next(made))}


def measure_invented(path: Path, deblurrer: Deblurrer, frames: int) -> None:
    """Prints how much the restored clip changes where its input stands still."""
    clips = {path.name: list(islice(_decode(path), frames))}
    if len(clips[path.name]) == 1:
        still, rng = clips.pop(path.name)[0][:720, :1280], np.random.default_rng(0)
        for tremble_px in (0.0, 0.1):
            clips[f"{path.name}, trembling by {tremble_px} px"] = [
                np.clip(np.rint(view + rng.normal(0, 1.5, still.shape)), 0, 255).astype(np.uint8)
                for view in (
                    ndimage.shift(still.astype(float), (*rng.normal(0, tremble_px, 2), 0), order=3)
                    for _ in range(frames)
                )
            ]
    for name, blurred in clips.items():
        for what, clip in restore_clip(blurred, deblurrer).items():
            static = measure_static(blurred, clip)
            print(
                f"{name}, {what}: {static.count} static blocks ({static.share:.0%}), "
                f"{static.worse:.2%} worse, worst {static.worst:+.2f} levels, "
                f"{'passes' if static.passes() else 'FAILS'}"
            )


def measure_neighbours(folder: Path, deblurrer: Deblurrer) -> None:
    """Prints what the frames before and after are worth."""
    pairs = {int(pair.blurred.stem): pair for pair in find_pairs(folder)}
    apart = min(after - before for before, after in pairwise(sorted(pairs)))
    restored = {}
    with _Watch() as network:
        for number, pair in pairs.items():
            blurred = read_picture(pair.blurred)
            restored[number] = (blurred, deblurrer.restore(blurred))
    with _Watch() as averaging:
        frames = {number: RestoredFrame(*both) for number, both in restored.items()}
        averaged = {
            number: average(frame, frames.get(number - apart), frames.get(number + apart))
            for number, frame in frames.items()
        }
    scores = []
    for number, frame in frames.items():
        sharp = read_picture(pairs[number].sharp)
        shown = (frame.blurred, frame.restored, averaged[number])
        scores.append([psnr(picture, sharp) for picture in shown])
    blurred_db, alone, together = np.mean(scores, axis=0)
    gains = [row[2] - row[1] for row in scores]
    print(
        f"{folder}, {len(frames)} frames, {apart} apart: blurred {blurred_db:.2f} dB, one by one "
        f"{alone:.2f}, averaged {together:.2f} ({together - alone:+.2f}, least {min(gains):+.2f}), "
        f"time x {1 + averaging.cpu_seconds / network.cpu_seconds:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["speed", "flicker", "static", "neighbours"])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    deblurrer = Deblurrer.load(options.weights, options.device)
    for clip in options.clips:
        if options.what == "speed":
            measure_speed(clip, deblurrer, options.seconds, options.rounds)
        elif options.what == "neighbours":
            measure_neighbours(clip, deblurrer)
        elif options.what == "flicker":
            measure_flicker(clip, deblurrer, options.frames)
        else:
            measure_invented(clip, deblurrer, options.frames)


if __name__ == "__main__":
    main()
