"""Measures a clip from file to file against the network alone, and its flicker.

    python benchmarks/video.py speed CLIP [--weights NAME|FILE] [--seconds 2]
    python benchmarks/video.py flicker CLIP... [--weights NAME|FILE] [--frames 12]
    python benchmarks/video.py static CLIP|PHOTO... [--weights NAME|FILE] [--frames 12]

`speed` restores the first seconds of CLIP, first in memory with nothing but the network, then
from file to file with audio and all, in turns, and prints both rates and their ratio: the aim is
0.85. On a machine that is busy with other things only the network's share of the CPU time means
something: where the network alone keeps all cores busy, the ratio is about that.

`flicker` prints what `benchmarks/flicker.py` measures, before encoding: the aim is 1.10.

`static` prints how many blocks change though the input stands still, without and with the steadying
of `deblurcli/io/videos/steadying.py`: the aim is at most 1 % that change by over a level more than
the input. A photo of stripes, a grid or a facade becomes a clip of a camera that stands still, with
noise (σ = 1.5) in each frame; and one of a camera that trembles by 0.1 px.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from flicker import measure, measure_static
from numpy.typing import NDArray
from scipy import ndimage

from deblurcli.deblurrer import Deblurrer
from deblurcli.io.videos import restore_video
from deblurcli.io.videos.steadying import Steadier


def _decode(clip: Path) -> Iterator[NDArray[Any]]:
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
    flicker = measure(blurred, map(deblurrer.restore, blurred))
    print(
        f"{clip.name}: brightness {flicker.brightness:.3f}, detail {flicker.detail:.3f}, "
        f"sharpness {flicker.sharpness:.3f}, followed {flicker.followed:.0%}, "
        f"{'passes' if flicker.passes() else 'FAILS'}"
    )


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
        restored = [deblurrer.restore(frame) for frame in blurred]
        made = iter(restored)
        steadier = Steadier(lambda _, made=made: next(made))
        steadied = [steadier(frame) for frame in blurred]
        for what, clip in (("as restored", restored), ("steadied", steadied)):
            static = measure_static(blurred, clip)
            print(
                f"{name}, {what}: {static.count} static blocks ({static.share:.0%}), "
                f"{static.worse:.2%} worse, worst {static.worst:+.2f} levels, "
                f"{'passes' if static.passes() else 'FAILS'}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["speed", "flicker", "static"])
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
        elif options.what == "flicker":
            measure_flicker(clip, deblurrer, options.frames)
        else:
            measure_invented(clip, deblurrer, options.frames)


if __name__ == "__main__":
    main()
