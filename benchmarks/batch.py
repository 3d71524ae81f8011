"""How much of a folder's time is the network's own.

    python benchmarks/batch.py [--weights NAME|FILE] [--photos 50]

Writes so many 1280×720 JPEGs, restores them in memory for the network's own time, then restores
one file and the whole folder with the command. The bound: the folder takes at most
1.15 × (photos × the network's time for one) + start-up, where start-up is what the command takes
for one photo beyond the network's time. Also prints the peak memory of both commands: it must
not grow with the number of photos. Exits with 1 when a bound is not kept. Times mean something
on an otherwise quiet machine only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from skimage import data

from deblurcli import Deblurrer

BOUND = 1.15


def command(*words: str) -> tuple[float, float]:
    """Wall-clock seconds and peak MiB of one ``deblur`` process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "deblurcli", *words, "-q"])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    kib = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return time.perf_counter() - start, kib / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--photos", type=int, default=50)
    options = parser.parse_args()
    picture = Image.fromarray(data.coffee()).resize((1280, 720), Image.Resampling.BICUBIC)

    deblurrer = Deblurrer.load(options.weights)
    pixels = np.asarray(picture)
    times = []
    for _ in range(options.photos // 2 + 3):
        start = time.perf_counter()
        deblurrer.restore(pixels)
        times.append(time.perf_counter() - start)
    network = median(times[3:])

    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        for number in range(options.photos):
            shifted = Image.fromarray(np.roll(pixels, 7 * number, axis=1))
            shifted.save(photos / f"{number}.jpg", quality=92)
        weights = ("--weights", options.weights)
        one, one_mib = command(str(photos / "0.jpg"), "-o", str(Path(folder, "one.jpg")), *weights)
        many, many_mib = command(str(photos), "-o", str(Path(folder, "sharp")), *weights)

    start_up = one - network
    bound = BOUND * options.photos * network + start_up
    ratio = (many - start_up) / (options.photos * network)
    print(f"network alone, one photo   {network:.3f} s (median of {len(times) - 3})")
    print(f"command, one photo         {one:.2f} s, peak {one_mib:.0f} MiB")
    print(f"command, {options.photos} photos       {many:.2f} s, peak {many_mib:.0f} MiB")
    print(f"beyond start-up            {ratio:.3f} x the network's own time (bound {BOUND})")
    return int(many > bound)


if __name__ == "__main__":
    sys.exit(main())
