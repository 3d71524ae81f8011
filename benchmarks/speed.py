"""How long one photo takes from the command line, and how much memory a large one takes.

    python benchmarks/speed.py [--weights FILE] [--runs 5]

Runs whole processes, in turn: ``import torch`` alone, one 1280×720 JPEG, the same with
``--backend onnx``, and once a JPEG of 12 megapixels. The bounds: the 720p process takes at most
twice the time of ``import torch`` plus 1.5 times that of the network in it; the 12-megapixel
process stays below 2 GB. Exits with 1 when one is not kept. Wall-clock times mean something on an
otherwise quiet machine only; processor time is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ALLOWED_IMPORTS, ALLOWED_NETWORKS = 2.0, 1.5
ALLOWED_BYTES = 2e9


@dataclass(frozen=True)
class Usage:
    """What one process took, and the network in it."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    network_seconds: float


def run(command: list[str]) -> Usage:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    printed = process.stdout.read()
    complaint = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall_seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{complaint}")
    unit = 1 if sys.platform == "darwin" else 1024
    network_seconds = json.loads(printed)["jobs"][0]["seconds"] if printed else 0.0
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Usage(wall_seconds, cpu_seconds, usage.ru_maxrss * unit, network_seconds)


def make_photo(path: Path, width: int, height: int) -> None:
    """Writes a JPEG with structure at all scales, about as large as a camera's would be."""
    rng = np.random.default_rng(0)
    photo = np.zeros((height, width, 3))
    for cell in (256, 64, 16, 4):
        coarse = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), dtype=np.uint8)
        photo += (
            np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
            / 4
        )
    Image.fromarray(photo.round().astype(np.uint8)).save(path, quality=92)


def make_photo_elsewhere(path: Path, width: int, height: int) -> Path:
    """In a process of its own: Linux counts the memory of the one that starts a process as
    that process's peak."""
    maker = multiprocessing.get_context("spawn").Process(
        target=make_photo, args=(path, width, height)
    )
    maker.start()
    maker.join()
    return path


def describe(label: str, usages: list[Usage]) -> Usage:
    """Prints the medians of several runs and returns them."""
    middle = Usage(
        statistics.median(u.wall_seconds for u in usages),
        statistics.median(u.cpu_seconds for u in usages),
        int(statistics.median(u.peak_bytes for u in usages)),
        statistics.median(u.network_seconds for u in usages),
    )
    print(
        f"{label:24} {middle.wall_seconds:7.2f} s wall {middle.cpu_seconds:7.2f} s processor "
        f"{middle.peak_bytes / 1e6:7.0f} MB peak   (median of {len(usages)})",
        flush=True,
    )
    return middle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--runs", type=int, default=5, help="how often each is timed")
    options = parser.parse_args()
    deblur = [sys.executable, "-m", "deblurcli", "--weights", options.weights, "--device", "cpu"]
    bare = [sys.executable, "-c", "import torch"]
    with tempfile.TemporaryDirectory() as folder:
        small = make_photo_elsewhere(Path(folder, "720p.jpg"), 1280, 720)
        large = make_photo_elsewhere(Path(folder, "12mp.jpg"), 4000, 3000)
        output = Path(folder, "out.jpg")
        restore_small = [*deblur, str(small), "-o", str(output), "--overwrite", "--json"]
        restore_large = [*deblur, str(large), "-o", str(output), "--overwrite"]
        by_onnx = [*restore_small, "--backend", "onnx"]
        run(bare), run(restore_small), run(by_onnx)  # files into the cache, bytecode written
        imports, photos, without_torch = [], [], []
        for _ in range(options.runs):  # in turn, so that both meet the same machine
            imports.append(run(bare))
            photos.append(run(restore_small))
            without_torch.append(run(by_onnx))
        imported = describe("import torch", imports)
        restored = describe("one 1280x720 JPEG", photos)
        describe("the same, ONNX Runtime", without_torch)
        big = describe("one 12-megapixel JPEG", [run(restore_large)])
    allowed_seconds = ALLOWED_IMPORTS * imported.wall_seconds
    allowed_seconds += ALLOWED_NETWORKS * restored.network_seconds
    quick = restored.wall_seconds <= allowed_seconds
    small_enough = big.peak_bytes < ALLOWED_BYTES
    print(
        f"720p: {restored.wall_seconds:.2f} s of {allowed_seconds:.2f} s allowed, "
        f"{restored.wall_seconds / imported.wall_seconds:.2f} x import torch: "
        f"{'kept' if quick else 'NOT KEPT'}"
    )
    print(
        f"12 MP: {big.peak_bytes / 1e9:.2f} GB of {ALLOWED_BYTES / 1e9:.0f} GB: "
        f"{'kept' if small_enough else 'NOT KEPT'}"
    )
    return 0 if quick and small_enough else 1


if __name__ == "__main__":
    sys.exit(main())
