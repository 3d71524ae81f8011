"""``deblur eval``: the figures that papers give, for weights of one's own choice."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.errors import UsageError, already_exists, cannot_write

if TYPE_CHECKING:
    from deblurcli.evaluation.cases import Case
    from deblurcli.evaluation.evaluate import Failure, Method
    from deblurcli.evaluation.metrics import Image
    from deblurcli.evaluation.scores import Score, Summary

SPLITS = ("test", "val", "train", "all")
BLURS = ("linear", "gamma", "both")


def run(  # noqa: PLR0912, PLR0915 (the command from top to bottom)
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
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results",
            metavar="DIR",
            show_default=False,
            help="Also score pictures that something else restored, named as the blurred ones. "
            "May be repeated; without --weights, only they are scored.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="A,B,...",
            show_default=False,
            help="What to measure beside PSNR: ssim, ssim_matlab_rgb, sharpness (all three where "
            "the extra eval is installed), or metrics of pyiqa such as lpips and niqe (extra "
            "metrics). psnr alone: nothing else.",
        ),
    ] = None,
    blur: Annotated[
        str,
        typer.Option(
            "--blur",
            metavar="|".join(BLURS),
            callback=options.one_of(BLURS),
            help="Which of GOPRO's two kinds of blur.",
        ),
    ] = "both",
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
    With torchrun, several processes (one for each GPU) share the pictures.
    """
    rank = int(os.environ.get("RANK", "0"))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    quiet = quiet or rank > 0
    console.start(quiet=quiet, verbose=verbose)
    if report is not None and report.is_dir():
        raise UsageError(report, "is a folder", "give a file name to --report")
    if report is not None and report.exists() and not overwrite:
        raise already_exists(report, "give another --report, or --overwrite")
    if save_images is not None and save_images.exists() and not save_images.is_dir():
        raise UsageError(save_images, "is a file, not a folder", "give another --save-images")
    if report is not None and not report.parent.is_dir():
        raise UsageError(report, "its folder does not exist", f"make it: mkdir -p {report.parent}")

    import torch
    from torch import distributed

    from deblurcli.cli.fetching import find_weights
    from deblurcli.deblurrer import Deblurrer
    from deblurcli.evaluation.cases import find_cases
    from deblurcli.evaluation.evaluate import BLURRED, method_of, results_of, score_cases
    from deblurcli.evaluation.metrics import find_metrics, has_scikit_image
    from deblurcli.evaluation.scores import Score, ScoreFile, summarise
    from deblurcli.evaluation.tables import as_text, conventions, tabulate

    names = [name.strip() for name in metrics.split(",")] if metrics is not None else None
    chosen = find_metrics(names)
    if names is None and not has_scikit_image() and not json:
        console.say("PSNR only; for SSIM and sharpness: pip install 'deblurcli[eval]'")
    cases: list[Case] = []
    for case in find_cases(data, None if split == "all" else split, blur):
        if not limit or sum(other.set_name == case.set_name for other in cases) < limit:
            cases.append(case)
    methods = [BLURRED]
    default = [] if results else [os.environ.get("DEBLUR_WEIGHTS") or "default"]
    if processes > 1:
        # The slowest process may take hours longer than the others.
        distributed.init_process_group("gloo", timeout=timedelta(days=30))
        if device in ("auto", "cuda") and torch.cuda.is_available():
            gpu = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            device = f"cuda:{gpu}"
    for name in weights or default:
        deblurrer = Deblurrer.load(
            find_weights(name, offline=offline, quiet=quiet),
            device,
            precision,
            tile=tile,
            strength=strength,
            offline=offline,
        )
        methods.append(method_of(deblurrer, _unused(deblurrer.card.name, name, methods)))
    for folder in results or []:
        method = results_of(folder, cases)
        methods.append(replace(method, name=_unused(method.name, str(folder), methods)))

    def save(method: Method, case: Case, image: Image) -> None:
        if save_images is not None and method.restorer is not None:
            target = save_images / _plain(case.set_name) / _plain(method.name)
            _save_png(target / f"{case.name}.png", image, overwrite=overwrite)

    found: list[Score | Failure] = []
    mine = cases[rank::processes]
    with ExitStack() as stack:
        if rank > 0:
            distributed.barrier()  # the first makes or mends the table
        file = ScoreFile(csv, [metric.name for metric in chosen]) if csv else None
        if processes > 1 and rank == 0:
            distributed.barrier()
        total = sum(method.covers(case) for case in mine for method in methods)
        bar = stack.enter_context(console.progress(total, " pictures", quiet=quiet))
        for result in score_cases(
            methods, mine, names, file=file, identity=do_no_harm, on_restored=save
        ):
            found.append(result)
            if isinstance(result, Score):
                bar.set_postfix_str(f"{result.method} {result.psnr_db:.2f} dB")
            else:
                console.say_error(result.error)
            bar.update()
    if processes > 1:
        found = _gather(found, cases, processes)
    scores = [result for result in found if isinstance(result, Score)]
    failures = [result for result in found if not isinstance(result, Score)]
    summaries = summarise(scores)
    if rank == 0:
        lines = conventions(chosen, cases)
        if json:
            console.print_json(_document(summaries, methods, failures, lines))
        elif scores:
            print(as_text(tabulate(summaries, methods, chosen)))
            for line in [] if quiet else lines:
                console.say(line)
        if report is not None and scores:
            from deblurcli.evaluation.report import write_report

            write_report(report, scores, summaries, methods, cases, chosen, overwrite=overwrite)
    # The first process speaks for all.
    return console.EXIT_FAILED if failures and rank == 0 else 0


def _document(
    summaries: list[Summary], methods: list[Method], failures: list[Failure], lines: list[str]
) -> dict[str, object]:
    return {
        "deblurcli": __version__,
        "conventions": lines,
        "methods": [
            {
                "name": method.name,
                "identity": method.identity,
                "parameters": method.parameters,
                "gmacs_256": method.gmacs,
            }
            for method in methods
        ],
        "results": [
            {
                "set_name": s.set_name,
                "method": s.method,
                "pictures": s.pictures,
                # Equal pictures have an infinite PSNR, which JSON can't hold.
                **{name: v if isfinite(v) else None for name, v in s.figures.items()},
            }
            for s in summaries
        ],
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


def _gather(
    found: list[Score | Failure], cases: list[Case], processes: int
) -> list[Score | Failure]:
    """The results of all processes, in the order of the cases."""
    from torch import distributed

    from deblurcli.evaluation.scores import Score

    shares: list[list[Score | Failure]] = [[] for _ in range(processes)]
    distributed.all_gather_object(shares, found)
    distributed.destroy_process_group()
    place = {(case.set_name, case.name): number for number, case in enumerate(cases)}

    def position(result: Score | Failure) -> int:
        if isinstance(result, Score):
            return place[result.set_name, result.image]
        return place[result.case.set_name, result.case.name]

    return sorted((result for share in shares for result in share), key=position)


def _unused(name: str, given: str, methods: list[Method]) -> str:
    """A name for a method that no other row has."""
    taken = {method.name for method in methods}
    candidates = [name, f"{name} ({Path(given).stem})", f"{name} ({given})"]
    numbered = (f"{name} ({i})" for i in range(2, len(taken) + 3))
    return next(name for name in (*candidates, *numbered) if name not in taken)


def _plain(name: str) -> str:
    """A set's or method's name as the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def _save_png(target: Path, image: Image, *, overwrite: bool) -> None:
    import numpy as np

    from deblurcli.data.pictures import read_picture, write_png
    from deblurcli.io.files import atomic_output

    if target.exists() and not overwrite:
        # A run that was stopped between picture and line of the table makes the picture again.
        if not np.array_equal(read_picture(target), image):
            raise already_exists(target, "give another --save-images, or --overwrite")
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error, "give another --save-images") from error
    with atomic_output(target, overwrite=overwrite) as part:
        write_png(part, image)
