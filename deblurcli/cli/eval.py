"""``deblur eval``: the figures that papers give, for weights of one's own choice."""

import os
import pickle
import re
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Literal

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.cli.options import REQUIRED, option, whole_number
from deblurcli.errors import EXIT_FAILED, UsageError, already_exists, install
from deblurcli.io.files import atomic_output, check_target, make_folder_of


def evaluate(  # noqa: PLR0912, PLR0915 (the command from top to bottom)
    *,
    data: list[Path] = option(
        REQUIRED, "A data set: GOPRO, REDS, Köhler's, or folders blur and sharp; repeatable.", "DIR"
    ),
    weights: list[str] | None = option(
        None,
        "Weights to measure; repeatable. [env var: DEBLUR_WEIGHTS; default: default]",
        "NAME|FILE",
        autocompletion=options.complete_weights,
    ),
    results: list[Path] | None = option(
        None, "Score what something else restored; repeatable. Without --weights, only that.", "DIR"
    ),
    metrics: str | None = option(
        None,
        "What to measure beside PSNR: ssim, ssim_matlab_rgb, sharpness (all three where the extra "
        "eval is installed), or metrics of pyiqa such as lpips and niqe (extra metrics). psnr "
        "alone: nothing else.",
        "A,B,...",
        autocompletion=options.complete("psnr", "ssim", "sharpness", "lpips", "niqe"),
    ),
    blur: options.Blur = option("both", "Which of GOPRO's two kinds of blur."),
    split: Literal["test", "val", "train", "all"] = option("test", "The part of a data set."),
    limit: int = whole_number(0, "Only the first N pictures of each set; 0: all.", 0),
    csv: Path | None = option(
        None, "Keep every picture's figures here; run again, nothing is measured twice.", "FILE"
    ),
    report: Path | None = option(None, "Write a page to look at.", "FILE.html"),
    save_images: Path | None = option(None, "Keep the restored pictures here, as PNG.", "DIR"),
    do_no_harm: bool = option(False, "Also restore the sharp pictures: how far do they move?"),
    compute: options.ComputeOptions,
    overwrite: options.Overwrite = False,
    markdown: bool = option(False, "Print the tables in Markdown, as papers have them."),
    json: options.Json = False,
) -> int:
    """Measure weights on pairs of pictures: PSNR, SSIM, seconds.

    The first row is the blurred input itself. GOPRO's two kinds of blur are measured apart.
    With torchrun, several processes (one for each GPU) share the pictures.
    """
    rank = int(os.environ.get("RANK", "0"))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if json and markdown:
        raise UsageError("--markdown", "can't go with --json", "leave one of them out")
    if save_images is not None and save_images.exists() and not save_images.is_dir():
        raise UsageError(save_images, "is a file, not a folder", "give another --save-images")
    if report is not None:
        check_target(report, overwrite=overwrite, remedy="give another --report, or --overwrite")

    import numpy as np
    import torch
    from torch.distributed.rendezvous import rendezvous

    from deblurcli.data.pictures import read_picture, write_png
    from deblurcli.evaluation.cases import Case, find_cases
    from deblurcli.evaluation.evaluate import BLURRED, Method, method_of, results_of, score_cases
    from deblurcli.evaluation.metrics import find_metrics, has_scikit_image
    from deblurcli.evaluation.report import as_markdown, as_text, conventions, tabulate
    from deblurcli.evaluation.scores import Score, ScoreFile, summarise
    from deblurcli.io.image import Image

    names = [name.strip() for name in metrics.split(",")] if metrics is not None else None
    chosen = find_metrics(names)
    if names is None and not has_scikit_image() and not json:
        console.say(f"PSNR only; for SSIM and sharpness: {install('eval')}")
    cases: list[Case] = []
    for case in find_cases(data, None if split == "all" else split, blur):
        if not limit or sum(other.set_name == case.set_name for other in cases) < limit:
            cases.append(case)
    if processes > 1:
        # torchrun's store, not a process group: the threads of gloo outlive the group and, on the
        # way out of Python, now and then abort the process. The slowest may take hours longer.
        store, _, _ = next(rendezvous("env://"))
        store.set_timeout(timedelta(days=30))
        if compute.device in ("auto", "cuda") and torch.cuda.is_available():
            gpu = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            compute = replace(compute, device=f"cuda:{gpu}")

    methods = [BLURRED]

    def add(method: Method, given: str) -> None:
        """Adds a row to the tables, of a name that no other row has."""
        name, taken = method.name, {other.name for other in methods}
        numbered = (f"{name} ({number})" for number in range(2, len(taken) + 3))
        candidates = (name, f"{name} ({Path(given).stem})", f"{name} ({given})", *numbered)
        methods.append(replace(method, name=next(n for n in candidates if n not in taken)))

    default = [] if results else [os.environ.get("DEBLUR_WEIGHTS") or "default"]
    for name in weights or default:
        add(method_of(compute.load(name)), name)
    for folder in results or []:
        add(results_of(folder, cases), str(folder))

    def save(method: Method, case: Case, image: Image) -> None:
        if save_images is None or method.restorer is None:
            return
        folders = (re.sub(r"[^\w.-]+", "-", n).strip("-.") for n in (case.set_name, method.name))
        target = save_images.joinpath(*(name or "unnamed" for name in folders), f"{case.name}.png")
        if target.exists() and not overwrite:
            # A run that was stopped between picture and line of the table makes the picture again.
            if not np.array_equal(read_picture(target), image):
                raise already_exists(target, "give another --save-images, or --overwrite")
            return
        make_folder_of(target, "give another --save-images")
        with atomic_output(target, overwrite=overwrite) as part:
            write_png(part, image)

    found = []
    mine = cases[rank::processes]
    if rank > 0:
        store.wait(["table"])  # the first makes or mends it
    file = ScoreFile(csv, [metric.name for metric in chosen]) if csv else None
    if processes > 1 and rank == 0:
        store.set("table", "made")
    total = sum(method.covers(case) for case in mine for method in methods)
    with console.progress(total, " pictures") as bar:
        for result in score_cases(
            methods, mine, names, file=file, identity=do_no_harm, on_restored=save
        ):
            found.append(result)
            if isinstance(result, Score):
                bar.set_postfix_str(f"{result.method} {result.psnr_db:.2f} dB")
            else:
                console.say_errors(result.error)
            bar.update()
    if processes > 1:
        store.set(f"found {rank}", pickle.dumps(found))
        if rank > 0:
            return 0  # the first process speaks for all
        places = {(case.set_name, case.name): number for number, case in enumerate(cases)}
        shares = [pickle.loads(store.get(f"found {number}")) for number in range(processes)]
        # In the order of the cases, as one process finds them.
        found = sorted(chain.from_iterable(shares), key=lambda r: places[r.set_name, r.image])
    scores = [result for result in found if isinstance(result, Score)]
    failures = [result for result in found if not isinstance(result, Score)]
    summaries, lines = summarise(scores), conventions(chosen, cases)
    if json:
        document: dict[str, object] = {"deblurcli": __version__, "conventions": lines}
        document["methods"] = [
            {
                "name": m.name,
                "identity": m.identity,
                "parameters": m.parameters,
                "gmacs_256": m.gmacs,
            }
            for m in methods
        ]
        document["results"] = [
            {"set_name": s.set_name, "method": s.method, "pictures": s.pictures, **s.figures}
            for s in summaries
        ]
        document["failures"] = [
            {"set": f.set_name, "image": f.image, "method": f.method, "error": str(f.error)}
            for f in failures
        ]
        console.print_json(document)
    elif scores:
        table = tabulate(summaries, methods, chosen)
        console.print_lines((as_markdown if markdown else as_text)(table))
        for line in lines:
            console.note(line)
    if report is not None and scores:
        from deblurcli.evaluation.report import write_report

        write_report(report, scores, summaries, methods, cases, chosen, overwrite=overwrite)
    return EXIT_FAILED if failures else 0
