"""``deblur train``: the paper's training, or our own, on any data and any number of devices."""

from __future__ import annotations

import dataclasses
import logging
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deblurcli.cli import console, options
from deblurcli.errors import DeblurError, NothingToDoError, UsageError

if TYPE_CHECKING:
    from deblurcli.config import Recipe
    from deblurcli.data.layouts import Pair
    from deblurcli.data.sampling import Source

_log = logging.getLogger("deblurcli")

DEFAULT_MINUTES = 480.0  # what the default weights were trained for

EPILOG = """\b
Data, in one of these layouts; several --data are mixed:
  GOPRO_Large   train/SEQUENCE/blur|blur_gamma|sharp/NNNNNN.png
  REDS          train/train_blur/CLIP/..., train/train_sharp/CLIP/...
  pairs         blur/NAME, sharp/NAME
  photos        any sharp photos; blur is synthesised as training goes

\b
Several GPUs:
  torchrun --nproc-per-node 4 -m deblurcli train --data GOPRO/ ...
"""


def train(
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="DIR[=WEIGHT]",
            show_default=False,
            help="What to train on; repeatable. [required]",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The run's folder.")
    ] = Path("runs/deblur"),
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            "--val",
            metavar="DIR",
            show_default=False,
            help="Pairs to measure on, never trained on; repeatable. "
            "[default: the test or val part of --data]",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="default|paper", help="Named set of all settings.")
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            show_default=False,
            help="Change one value of the recipe, also motion.NAME=VALUE; repeatable.",
        ),
    ] = None,
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print all values of the recipe and stop.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", metavar="N", min=1, show_default=False, help="Train so many steps."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            metavar="N",
            min=0.01,
            show_default=False,
            help="Train so many minutes. [default: 480, without --steps]",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", metavar="NAME|FILE", show_default=False, help="Start from these weights."
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    validate_every: Annotated[
        int, typer.Option("--validate-every", metavar="N", min=1, help="Steps between validations.")
    ] = 1000,
    validate_limit: Annotated[
        int,
        typer.Option(
            "--validate-limit", metavar="N", min=0, help="Most pairs of each set; 0: all."
        ),
    ] = 10,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=0, help="Processes that prepare data.")
    ] = 0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Decides everything random.")
    ] = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Train a network; Ctrl-C saves, --resume goes on."""
    console.start(quiet=quiet, verbose=verbose)
    from deblurcli.config import change_recipe, find_recipe

    chosen = change_recipe(find_recipe(recipe), settings or [])
    if show_recipe:
        console.print_json(dataclasses.asdict(chosen))
        return
    if not data:
        raise UsageError("train", "nothing to train on", "give --data DIR")
    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
        _log.warning(
            "trains for %g hours, as neither --steps nor --minutes is given; Ctrl-C saves, "
            "--resume goes on",
            minutes / 60,
        )
    if resume and weights:
        raise UsageError(
            "--weights", "can't go with --resume, which has its own", "leave one of them out"
        )
    sources, named = _find_sources(data, chosen)
    pairs = _find_validation(validation, [text for text, _ in named], sources)
    _train(
        chosen,
        settings or [],
        sources,
        pairs,
        output,
        steps=steps,
        minutes=minutes,
        resume=resume,
        weights=weights,
        device=device,
        precision=precision,
        validate_every=validate_every,
        validate_limit=validate_limit,
        workers=workers,
        seed=seed,
        training_data=tuple(note for _, note in named),
        as_json=json_,
        quiet=quiet,
    )


def _find_sources(data: list[str], recipe: Recipe) -> tuple[list[Source], list[tuple[str, str]]]:
    """Each source, with its folder and what the model card says of it."""
    from deblurcli.data.layouts import check_pairs, find_pairs, find_pictures
    from deblurcli.data.pictures import keep_large
    from deblurcli.data.sampling import Source, parse_source
    from deblurcli.data.synthesis import margin_px

    patch_px = max(recipe.patch_px, recipe.early_patch_px if recipe.early_share else 0)
    sources, named = [], []
    for text in data:
        folder, weight = parse_source(text)
        try:
            pairs = tuple(find_pairs(folder, "train"))
            check_pairs(pairs, patch_px)
            sources.append(Source(pairs=pairs, weight=weight))
            kinds = ", ".join(sorted({pair.kind for pair in pairs}))
            note = f"{len(pairs)} pairs ({kinds}) of {Path(folder).name}"
        except NothingToDoError:
            region_px = patch_px + 2 * margin_px(recipe.motion)
            photos = tuple(keep_large(find_pictures(folder), region_px))
            sources.append(Source(photos=photos, weight=weight))
            note = f"{len(photos)} sharp photos of {Path(folder).name}, blur synthesised"
        named.append((folder, note))
        _log.info("%s", note)
    return sources, named


def _find_validation(
    folders: list[Path] | None, data: list[str], sources: list[Source]
) -> list[Pair]:
    """Pairs to validate on; none of them may be trained on."""
    from deblurcli.data.layouts import check_pairs, find_pairs
    from deblurcli.evaluation.metrics import LEAST_PX

    if folders:
        pairs = [pair for folder in folders for pair in find_pairs(folder, "test")]
    else:
        pairs = []
        for folder in data:
            with suppress(NothingToDoError, UsageError):  # photos, or no such part
                pairs += [pair for pair in find_pairs(folder, "test") if pair.part]
    sharp = (p for s in sources for p in (*s.photos, *(pair.sharp for pair in s.pairs)))
    trained = {path.resolve() for path in sharp}
    for pair in pairs:
        if pair.sharp.resolve() in trained:
            raise UsageError(
                pair.sharp,
                "is both trained on and validated on",
                "give --data the training part only, or another --val",
            )
    check_pairs(pairs, LEAST_PX, "give larger pictures")
    return pairs


def _train(
    recipe: Recipe,
    settings: list[str],
    sources: list[Source],
    pairs: list[Pair],
    output: Path,
    *,
    steps: int | None,
    minutes: float | None,
    resume: bool,
    weights: str | None,
    device: str,
    precision: str,
    validate_every: int,
    validate_limit: int,
    workers: int,
    seed: int,
    training_data: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    try:
        from deblurcli.training import Limits, RunFolder, Trainer, Validation
    except ModuleNotFoundError as error:
        raise DeblurError(
            "train", f"needs the package {error.name}", "pip install 'deblurcli[train]'"
        ) from error
    import torch

    from deblurcli.devices import choose_device, choose_precision
    from deblurcli.training.progress import Progress

    place = choose_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    number_format = choose_precision(precision, place)
    folder = RunFolder(output)
    initial = folder.load_network() if resume else _initial(weights, quiet=quiet)
    if initial is not None:
        recipe = _describe_network(recipe, initial, settings)
    folder.prepare(resume=resume)
    trainer = Trainer(
        recipe,
        sources,
        folder,
        Limits(steps, minutes),
        seed=seed,
        precision={"fp32": "no"}.get(number_format.name, number_format.name),
        workers=workers,
        initial=initial,
        training_data=training_data,
        cpu=place.type == "cpu",
    )
    if resume:
        trainer.resume()
    validate = None
    if pairs:
        validate = Validation(
            pairs,
            limit=validate_limit,
            device=str(trainer.accelerator.device),
            precision=precision,
        )
    else:
        _log.warning("nothing to validate on: no best weights will be chosen; give --val")
    main = trainer.accelerator.is_main_process
    with console.progress(100, "%", description="training", quiet=quiet or not main) as bar:
        shown = 0.0

        def report(progress: Progress) -> None:
            nonlocal shown
            bar.update(round(100 * progress.share - shown, 2))
            shown = round(100 * progress.share, 2)
            line = _line(progress)
            bar.set_postfix_str(line)
            if main:
                _log.info("%s", line)

        progress = trainer.run(validate, validate_every=validate_every, report=report)
    trainer.close()
    if not main:
        return
    pictures = _draw(folder.path, validate, trainer.learner.mean_network)
    if as_json:
        document: dict[str, Any] = {
            "folder": str(folder.path),
            **dataclasses.asdict(progress),
            "loss": progress.loss if math.isfinite(progress.loss) else None,
            "pictures": pictures,
        }
        console.print_json(document)
    elif not quiet:
        best = "best.safetensors" if pairs else "last.safetensors"
        console.say(
            f"deblur: {_line(progress)}; use it: deblur photo.jpg --weights {output / best}"
        )


def _initial(weights: str | None, *, quiet: bool) -> Any:
    if weights is None:
        return None
    from deblurcli.cli.fetching import find_weights
    from deblurcli.weights.files import load_weights

    return load_weights(find_weights(weights, quiet=quiet))[0]


def _describe_network(recipe: Recipe, initial: Any, settings: list[str]) -> Recipe:
    """The recipe with what is true of the network to start from."""
    from deblurcli.config import change_recipe
    from deblurcli.training.train_step import describe_network

    described = describe_network(recipe, initial.config)
    if change_recipe(described, settings) != described:
        raise UsageError(
            "--set",
            "describes another network than the one to start from",
            "leave out network, scales, channels, unshuffle and block",
        )
    return described


def _draw(folder: Path, validate: Any, network: Any) -> list[str]:
    """Curves and samples at the end; a run without matplotlib has done its work all the same."""
    from deblurcli.training.progress import draw_curves, draw_sheet

    made = []
    try:
        draw_curves(folder / "metrics.csv", folder / "curves.png")
        made.append(str(folder / "curves.png"))
    except ImportError:
        _log.info("no curves.png without matplotlib: pip install 'deblurcli[train]'")
    if validate is not None:
        draw_sheet(validate.restore_samples(network), folder / "samples.png")
        made.append(str(folder / "samples.png"))
    return made


def _line(progress: Any) -> str:
    left = progress.seconds_left
    scores = " ".join(f"{name} {db:.2f} dB" for name, db in progress.scores.items())
    parts = [
        f"step {progress.step}",
        f"loss {progress.loss:.4g}" if math.isfinite(progress.loss) else "",
        scores,
        f"{progress.samples_per_second:.1f} samples/s" if progress.samples_per_second else "",
        f"{100 * progress.waiting:.0f} % waiting" if progress.waiting > 0.05 else "",
        f"{left / 60:.0f} min left" if left else "",
    ]
    return ", ".join(part for part in parts if part)
