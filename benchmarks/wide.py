"""The wide sets that the default weights are steered by, and the set for doing no harm.

    python benchmarks/wide.py [--data ../shared/data] --weights mine.safetensors [--json]

Restores every pair of six sets and the sharp photos that ``do_no_harm.txt`` names, with each of
the weights and with the reference (the shipped weights) in turn, picture by picture, so that
their times are of the same minutes. Prints, for each set and weights: the mean PSNR of the
blurred and of the restored pictures (RGB, 8 bit), the least gain of a picture, the median seconds
of a picture and the median of their ratio to the reference's. Doing no harm is judged by the PSNR
of the restored photo to itself, mean, median and worst, and by the largest local change: the
largest mean absolute difference in a window of 16x16 pixels, in levels of 255.

``--save DIR`` writes before and after (and the sharp picture) of the worst pictures of each set.
The pictures are no part of the project: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture, write_png
from deblurcli.deblurrer import Deblurrer
from deblurcli.evaluation.metrics import psnr

Image = NDArray[np.uint8]

SETS = ("more/gopro", "more/gopro_gamma", "more/reds", "gopro", "gopro_gamma", "reds/val")
HARM_SET = "do no harm"
HARM_LIST = Path(__file__).with_name("do_no_harm.txt")
HARM_FOLDER = "photos_more"
WINDOW_PX = 16
MAX_DB = 100.0  # what a picture that comes out as it went in counts as


@dataclass(frozen=True)
class Case:
    """A picture to restore and what should come out; of the do-no-harm set they are one file."""

    name: str
    blurred: Path
    sharp: Path


@dataclass(frozen=True)
class Result:
    """One picture, restored with one of the weights.

    Attributes:
        change: the largest local change of the picture by restoring it, in levels of 255.
        ratio: the seconds, divided by the reference's for the same picture.
    """

    set_name: str
    weights: str
    picture: str
    blurred_db: float
    restored_db: float
    change: float
    seconds: float
    ratio: float


def find_cases(root: Path, set_name: str) -> list[Case]:
    """The pictures of a set below the data root; none where its folder is missing."""
    if set_name == HARM_SET:
        paths = [root / HARM_FOLDER / n for n in HARM_LIST.read_text("utf-8").split()]
        cases = [Case(path.stem, path, path) for path in paths if path.is_file()]
        if 0 < len(cases) < len(paths):
            print(f"{set_name}: {len(cases)} of {len(paths)} listed pictures", file=sys.stderr)
        return cases
    if not (root / set_name).is_dir():
        return []
    return [Case(p.name, p.blurred, p.sharp) for p in find_pairs(root / set_name, "test")]


def local_change(before: Image, after: Image) -> float:
    """The largest mean absolute difference in any window of 16x16 pixels, all channels."""
    difference = np.abs(after.astype(np.float32) - before).mean(axis=2)
    window = [min(WINDOW_PX, side) for side in difference.shape]
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(difference)[None], window, stride=1)
    return float(means.max())


def measure(
    case: Case, set_name: str, deblurrers: dict[str, Deblurrer], reference: str
) -> Iterator[tuple[Result, dict[str, Image]]]:
    """The results of one picture, with the pictures themselves."""
    blurred, sharp = read_picture(case.blurred), read_picture(case.sharp)
    restored, seconds = {}, {}
    for name, deblurrer in deblurrers.items():
        start = time.perf_counter()
        restored[name] = np.asarray(deblurrer.restore(blurred), np.uint8)
        seconds[name] = time.perf_counter() - start
    for name, image in restored.items():
        result = Result(
            set_name,
            name,
            case.name,
            min(psnr(blurred, sharp), MAX_DB),
            min(psnr(image, sharp), MAX_DB),
            local_change(blurred, image),
            seconds[name],
            seconds[name] / seconds[reference],
        )
        yield result, {"before": blurred, "after": image, "sharp": sharp}


@dataclass(frozen=True)
class Row:
    """The figures of one set and weights.

    Attributes:
        blurred_db, restored_db: means of the pictures' PSNR in dB; median_db: of the restored ones.
        worst: the picture of least gain; of the do-no-harm set, that of least PSNR.
        worst_db: that gain, or that PSNR.
        change: the largest local change of all pictures, in levels of 255, and `changed` where.
        seconds: median of a picture; `ratio`: median of the ratio to the reference's.
    """

    set_name: str
    weights: str
    pictures: int
    blurred_db: float | None
    restored_db: float
    median_db: float
    worst_db: float
    worst: str
    change: float
    changed: str
    seconds: float
    ratio: float


def badness(result: Result) -> float:
    """What pictures of a set are ordered by, the worst first."""
    harm = result.set_name == HARM_SET
    return result.restored_db if harm else result.restored_db - result.blurred_db


def summarise(results: list[Result]) -> Row:
    """The figures of results that are all of one set and weights."""
    first, worst = results[0], min(results, key=badness)
    changed = max(results, key=lambda r: r.change)
    harm = first.set_name == HARM_SET
    return Row(
        first.set_name,
        first.weights,
        len(results),
        None if harm else statistics.fmean(r.blurred_db for r in results),
        statistics.fmean(r.restored_db for r in results),
        statistics.median(r.restored_db for r in results),
        badness(worst),
        worst.picture,
        changed.change,
        changed.picture,
        statistics.median(r.seconds for r in results),
        statistics.median(r.ratio for r in results),
    )


def print_tables(rows: list[Row]) -> None:
    """Two Markdown tables: the pairs, and doing no harm."""
    head = ("set", "weights", "pictures", "blurred dB", "restored dB", "least gain", "seconds", "×")
    pairs = [
        (
            r.set_name,
            r.weights,
            str(r.pictures),
            f"{r.blurred_db:.2f}",
            f"{r.restored_db:.2f}",
            f"{r.worst_db:+.2f} ({r.worst})",
            f"{r.seconds:.2f}",
            f"{r.ratio:.2f}",
        )
        for r in rows
        if r.blurred_db is not None
    ]
    harm_head = ("weights", "photos", "mean dB", "median dB", "worst dB", "largest local change",
                 "seconds", "×")  # fmt: skip
    harm = [
        (
            r.weights,
            str(r.pictures),
            f"{r.restored_db:.2f}",
            f"{r.median_db:.2f}",
            f"{r.worst_db:.2f} ({r.worst})",
            f"{r.change:.1f} ({r.changed})",
            f"{r.seconds:.2f}",
            f"{r.ratio:.2f}",
        )
        for r in rows
        if r.blurred_db is None
    ]
    for columns, lines in ((head, pairs), (harm_head, harm)):
        if lines:
            print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
            print("".join("| " + " | ".join(line) + " |\n" for line in lines))


def save(root: Path, worst: list[tuple[Result, dict[str, Image]]]) -> None:
    """Writes the pictures of results of one set and weights, numbered, the worst first."""
    for rank, (result, images) in enumerate(worst, start=1):
        set_name = re.sub(r"[/ ]", "-", result.set_name)
        folder = root / set_name / re.sub(r"[/ ]", "-", result.weights)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, image in images.items():
            if kind != "sharp" or result.set_name != HARM_SET:
                picture = result.picture.replace("/", "-")
                write_png(folder / f"{rank}-{picture}-{kind}.png", image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = os.environ.get("DEBLUR_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help=f"default: {default}")
    parser.add_argument("--weights", action="append", default=[], help="name or file; repeatable")
    parser.add_argument("--reference", default="default", help="weights that times are held to")
    parser.add_argument("--sets", default=",".join((*SETS, HARM_SET)), help="default: %(default)s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--ensemble", type=int, default=1, choices=(1, 2, 4, 8))
    parser.add_argument("--save", type=Path, metavar="DIR", help="pictures of the worst go here")
    parser.add_argument("--worst", type=int, default=5, help="how many of each set are saved")
    parser.add_argument("--json", action="store_true", help="print every picture's figures")
    options = parser.parse_args()

    deblurrers: dict[str, Deblurrer] = {}
    measured = [(text, options.ensemble) for text in options.weights or [options.reference]]
    loaded = set()
    for text, ensemble in ((options.reference, 1), *measured):
        deblurrer = Deblurrer.load(
            text, options.device, options.precision, ensemble=ensemble, offline=True
        )
        if (deblurrer.weights_path, ensemble) in loaded:
            continue
        loaded.add((deblurrer.weights_path, ensemble))
        copies = f", {ensemble} copies" if ensemble > 1 else ""
        name = deblurrer.card.name + copies
        name = name if name not in deblurrers else f"{text}{copies}"
        deblurrers[name] = deblurrer
        deblurrer.restore(np.zeros((256, 256, 3), np.uint8))  # the first picture takes longer
    reference = next(iter(deblurrers))
    print(f"in {deblurrers[reference].precision}", file=sys.stderr)

    results: list[Result] = []
    for set_name in options.sets.split(","):
        cases = find_cases(options.data, set_name)
        if not cases:
            print(f"{set_name}: no pictures in {options.data}: left out", file=sys.stderr)
        worst: dict[str, list[tuple[Result, dict[str, Image]]]] = {}
        for number, case in enumerate(cases, start=1):
            for result, images in measure(case, set_name, deblurrers, reference):
                results.append(result)
                kept = [*worst.get(result.weights, []), (result, images)]
                worst[result.weights] = sorted(kept, key=lambda k: badness(k[0]))[: options.worst]
            line = f"{set_name} {number}/{len(cases)}: {case.name}"
            print(line, ", ".join(f"{badness(r):+.2f} dB" for r in results[-len(deblurrers) :]),
                  file=sys.stderr, flush=True)  # fmt: skip
        if options.save is not None:
            for kept in worst.values():
                save(options.save, kept)

    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.set_name, result.weights), []).append(result)
    rows = [summarise(group) for group in groups.values()]
    if options.json:
        document = {"sets": [asdict(r) for r in rows], "pictures": [asdict(r) for r in results]}
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        print_tables(rows)


if __name__ == "__main__":
    main()
