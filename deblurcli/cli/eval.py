"""``deblur eval``: the figures that papers give, for weights of one's own choice."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deblurcli.cli import console, options
from deblurcli.errors import UsageError

if TYPE_CHECKING:
    from deblurcli.evaluation.evaluate import Case, Failure, Image, Method
    from deblurcli.evaluation.scores import Score

SPLITS = ("test", "val", "train", "all")


def run(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="DIR",
            help="A data set: GOPRO, REDS, Köhler's, or folders blur and sharp. May be repeated.",
        ),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="NAME|FILE",
            show_default=False,
            help="Weights to measure, side by side when repeated. "
            "[env var: DEBLUR_WEIGHTS; default: default]",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="|".join(SPLITS),
            callback=options.one_of(SPLITS),
            help="The part of a data set that has parts.",
        ),
    ] = "test",
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=0, help="Only the first N pictures of each set; 0: all."
        ),
    ] = 0,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            show_default=False,
            help="Keep the figures of every picture here; run again to go on where it stopped, "
            "without measuring anything twice.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", show_default=False, help="Write a page to look at."
        ),
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(
            "--save-images",
            metavar="DIR",
            show_default=False,
            help="Keep the pictures restored in this run here, as PNG.",
        ),
    ] = None,
    do_no_harm: Annotated[
        bool,
        typer.Option("--do-no-harm", help="Also restore the sharp pictures: how far do they move?"),
    ] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = "auto",
    strength: options.Strength = 1.0,
    overwrite: options.Overwrite = False,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Measure weights on blurred and sharp pictures: PSNR, SSIM, seconds, memory.

    The first row is the blurred input itself. GOPRO's two kinds of blur are measured apart.
    """
    console.start(quiet=quiet, verbose=verbose)
    if report is not None and report.exists() and not overwrite:
        raise UsageError(report, "exists", "give another --report, or --overwrite")
    if report is not None and report.is_dir():
        raise UsageError(report, "is a folder", "give a file name to --report")
    if save_images is not None and save_images.exists() and not save_images.is_dir():
        raise UsageError(save_images, "is a file, not a folder", "give another --save-images")
    if report is not None and not report.parent.is_dir():  # said now, not after hours
        raise UsageError(report, "its folder does not exist", f"make it: mkdir -p {report.parent}")

    from deblurcli.cli.fetching import find_weights
    from deblurcli.deblurrer import Deblurrer
    from deblurcli.evaluation.evaluate import BLURRED, Failure, find_cases, method_of, score_cases
    from deblurcli.evaluation.scores import ScoreFile, summarise
    from deblurcli.evaluation.tables import as_text, tabulate

    cases = _first_of_each(find_cases(data, None if split == "all" else split), limit)
    methods = [BLURRED]
    for name in weights or [os.environ.get("DEBLUR_WEIGHTS") or "default"]:
        deblurrer = Deblurrer.load(
            find_weights(name, offline=offline, quiet=quiet),
            device,
            precision,
            tile=options.tile_px(tile),
            strength=strength,
            offline=offline,
        )
        methods.append(method_of(deblurrer, _unused(deblurrer.card.name, name, methods)))

    def save(method: Method, case: Case, image: Image) -> None:
        if save_images is not None:
            target = save_images / _plain(case.set_name) / _plain(method.name)
            _save_png(target / f"{case.name}.png", image, overwrite=overwrite)

    scores: list[Score] = []
    failures: list[Failure] = []
    with ExitStack() as stack:
        file = stack.enter_context(ScoreFile(csv)) if csv else None
        bar = stack.enter_context(
            console.progress(len(cases) * len(methods), " pictures", quiet=quiet)
        )
        for result in score_cases(
            methods, cases, file=file, do_no_harm=do_no_harm, on_restored=save
        ):
            if isinstance(result, Failure):
                failures.append(result)
                console.say_error(result.error)
            else:
                scores.append(result)
                bar.set_postfix_str(f"{result.method} {result.psnr_db:.2f} dB")
            bar.update()

    summaries = summarise(scores)
    if json:
        console.print_json(_document(summaries, methods, failures))
    elif scores:
        print(as_text(tabulate(summaries, methods)))
        if not quiet:
            _say_conventions(cases)
    if report is not None and scores:
        from deblurcli.evaluation.report import write_report

        write_report(report, scores, summaries, methods, cases, overwrite=overwrite)
    return console.EXIT_FAILED if failures else 0


def _first_of_each(cases: list[Case], limit: int) -> list[Case]:
    if not limit:
        return cases
    taken: Counter[str] = Counter()
    kept = []
    for case in cases:
        taken[case.set_name] += 1
        if taken[case.set_name] <= limit:
            kept.append(case)
    return kept


def _unused(card_name: str, given: str, methods: list[Method]) -> str:
    """A name for the weights that no other row has."""
    taken = {method.name for method in methods}
    candidates = [card_name, f"{card_name} ({Path(given).stem})", f"{card_name} ({given})"]
    numbered = (f"{card_name} ({i})" for i in range(2, len(taken) + 3))
    return next(name for name in (*candidates, *numbered) if name not in taken)


def _plain(name: str) -> str:
    """A set's or method's name as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def _save_png(target: Path, image: Image, *, overwrite: bool) -> None:
    import numpy as np

    from deblurcli.data.pictures import read_picture, write_png
    from deblurcli.io.files import atomic_output, output_error

    if target.exists() and not overwrite:
        # A run that was stopped between picture and line of the table makes the picture again.
        if not np.array_equal(read_picture(target), image):
            raise UsageError(target, "exists already", "give another --save-images, or --overwrite")
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = output_error(target, error).reason
        raise UsageError(target, reason, "give another --save-images") from error
    with atomic_output(target, overwrite=overwrite) as part:
        write_png(part, image)


def _document(summaries: Any, methods: list[Method], failures: list[Failure]) -> dict[str, Any]:
    from deblurcli import __version__
    from deblurcli.evaluation.tables import CONVENTIONS

    return {
        "deblurcli": __version__,
        "conventions": list(CONVENTIONS),
        "methods": [
            {
                "name": method.name,
                "identity": method.identity,
                "parameters": method.parameters,
                "gmacs_256": method.gmacs,
            }
            for method in methods
        ],
        "results": [summary.to_json() for summary in summaries],
        "failures": [
            {
                "set": f.case.set_name,
                "image": f.case.name,
                "method": f.method,
                "error": str(f.error),
            }
            for f in failures
        ],
    }


def _say_conventions(cases: list[Case]) -> None:
    from deblurcli.evaluation.tables import CONVENTIONS, KOEHLER_CONVENTION

    for line in CONVENTIONS:
        console.say(line)
    if any(case.shaken for case in cases):
        console.say(KOEHLER_CONVENTION)
