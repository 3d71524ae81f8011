"""Measures a clip from file to file against the network alone, and its flicker.

    python benchmarks/video.py speed CLIP [--weights NAME|FILE] [--seconds 2]
    python benchmarks/video.py flicker CLIP... [--weights NAME|FILE] [--frames 12]

`speed` restores the first seconds of CLIP, first in memory with nothing but the network, then
from file to file with audio and all, in turns, and prints both rates and their ratio: the aim is
0.85. On a machine that is busy with other things only the network's share of the CPU time means
something: where the network alone keeps all cores busy, the ratio is about that.

`flicker` prints what `benchmarks/flicker.py` measures, before encoding: the aim is 1.10.
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
from flicker import measure
from numpy.typing import NDArray

from deblurcli.deblurrer import Deblurrer
from deblurcli.io.videos import restore_video


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["speed", "flicker"])
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
        else:
            measure_flicker(clip, deblurrer, options.frames)


if __name__ == "__main__":
    main()
