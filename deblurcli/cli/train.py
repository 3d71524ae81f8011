"""``deblur train``: the paper's training, or our own, on any data and any number of devices."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deblurcli.cli import console, options
from deblurcli.errors import NothingToDoError, UsageError, not_installed

if TYPE_CHECKING:
    from deblurcli.config import RunConfig
    from deblurcli.data.dataset import Source
    from deblurcli.data.layouts import Pair
    from deblurcli.models.network import RestorationNetwork
    from deblurcli.training import TrainingStatus, Validation

_log = logging.getLogger("deblurcli")

TRACKERS = ("tensorboard", "wandb", "none")
BLURS = ("linear", "gamma", "both")

# What a resumed run may change: how long and where it trains, and how its rate goes on.
MAY_CHANGE = {
    *("steps", "minutes", "validate_every", "validate_limit", "snapshot_every", "workers"),
    *("device", "precision", "track", "validation"),
    *("learning_rate", "warmup_steps", "schedule", "milestones", "final_rate", "clip_norm"),
    *("accumulate", "patches_per_picture"),
}

EPILOG = """\b
Data, in one of these layouts; several --data are mixed:
  GOPRO_Large   train/SEQUENCE/blur|blur_gamma|sharp/NNNNNN.png
  REDS          train/train_blur/CLIP/..., train/train_sharp/CLIP/...
  RealBlur      SCENE/blur/blur_N.png, SCENE/gt/gt_N.png
  HIDE          train/NAME, test/..., GT/NAME
  pairs         blur/NAME, sharp/NAME; or lq/, gt/; or input/, target/
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
            "[default: every tenth scene of --data, held out]",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="default|paper|FILE",
            show_default=False,
            help="Set of all settings, also as a .json, .toml or .yaml file. [default: default]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            show_default=False,
            help="Change one value of the recipe, also motion.NAME=VALUE; repeatable.",
        ),
    ] = None,
    blur: Annotated[
        str | None,
        typer.Option(
            "--blur",
            metavar="|".join(BLURS),
            show_default=False,
            callback=options.one_of((*BLURS, None)),
            help="Which of GOPRO's two kinds of blur. [default: as the recipe says]",
        ),
    ] = None,
    show_recipe: Annotated[
        bool,
        typer.Option("--show-recipe", help="Print all values, as --recipe FILE.json reads them."),
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
            help="Train so many minutes. [default: until Ctrl-C, without --steps]",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output, as it was begun.")
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
        int | None,
        typer.Option(
            "--validate-every",
            metavar="N",
            min=1,
            show_default=False,
            help="Steps between validations. [default: 1000]",
        ),
    ] = None,
    validate_limit: Annotated[
        int | None,
        typer.Option(
            "--validate-limit",
            metavar="N",
            min=0,
            show_default=False,
            help="Most pairs of each set; 0: all. [default: 10]",
        ),
    ] = None,
    snapshot_every: Annotated[
        int | None,
        typer.Option(
            "--snapshot-every",
            metavar="N",
            min=1,
            show_default=False,
            help="Steps between weights files that are kept. [default: none]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=0,
            show_default=False,
            help="Processes that prepare data. [default: beside a GPU most cores, else 0]",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            show_default=False,
            help="Decides everything random. [default: 0]",
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            "--track",
            metavar="|".join(TRACKERS),
            show_default=False,
            callback=options.one_of((*TRACKERS, None)),
            help="What logs the run, where installed. [default: tensorboard]",
        ),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Train a network; Ctrl-C saves, --resume goes on."""
    # Of several processes the first one speaks.
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    console.start(quiet=quiet, verbose=verbose)
    from deblurcli.config import RunConfig, change_recipe, load_recipe

    given: dict[str, object] = {
        "data": data and tuple(_absolute(text) for text in data),
        "validation": validation and tuple(os.path.abspath(path) for path in validation),  # noqa: PTH100
        "weights": weights,
        "seed": seed,
        "steps": steps,
        "minutes": minutes,
        "validate_every": validate_every,
        "validate_limit": validate_limit,
        "snapshot_every": snapshot_every,
        "workers": workers,
        "device": None if device == "auto" else device,
        "precision": None if precision == "auto" else precision,
        "track": track,
    }
    settings = [*(settings or []), *([f"blur={blur}"] if blur else [])]
    stored = RunConfig()
    if resume:
        if weights:
            raise UsageError(
                "--weights", "can't go with --resume, which has its own", "leave one of them out"
            )
        with suppress(FileNotFoundError):
            stored = RunConfig.load(output / "config.json")
    begun = stored.recipe if recipe is None else load_recipe(recipe)
    config = dataclasses.replace(
        stored,
        recipe=change_recipe(begun, settings),
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    if show_recipe:
        console.print_json(dataclasses.asdict(config.recipe))
        return
    if not config.data:
        raise UsageError("train", "nothing to train on", "give --data DIR")
    if resume and stored.data:
        changed = stored.differences(config)
        for name, (before, now) in changed.items():
            if name not in MAY_CHANGE:
                raise UsageError(
                    f"--resume: {name}",
                    f"the run was begun with {before}, not {now}",
                    f"leave it out, or start anew with --weights {output / 'last.safetensors'}",
                )
        if changed and not quiet:
            words = (f"{name} {now} instead of {was}" for name, (was, now) in changed.items())
            console.say(f"deblur: goes on with {', '.join(words)}")
    if config.steps is None and config.minutes is None and not quiet:
        console.say(
            "deblur: trains until Ctrl-C at a constant rate, as neither --steps nor --minutes is "
            "given; --resume with one of them lets the rate fall at the end"
        )
    _train(config, settings, output, resume=resume, as_json=json_, quiet=quiet)


def _absolute(text: str) -> str:
    """``DIR=WEIGHT`` with the folder's whole path, so that a run goes on from anywhere."""
    from deblurcli.data.dataset import parse_source

    folder, weight = parse_source(text)
    return os.path.abspath(folder) + ("" if weight == 1 else f"={weight:g}")  # noqa: PTH100


def _train(
    config: RunConfig,
    settings: list[str],
    output: Path,
    *,
    resume: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    try:
        from deblurcli.training import RunFolder, Trainer, Validation
    except ModuleNotFoundError as error:
        raise not_installed("train", error.name or "accelerate", "train") from error
    import torch

    from deblurcli.config import change_recipe
    from deblurcli.devices import choose_device, choose_precision
    from deblurcli.training.train_step import describe_network

    place = choose_device(config.device)
    if place.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", place.index or 0)))
    wanted = config.recipe.precision if config.precision == "auto" else config.precision
    number_format = choose_precision(wanted, place)
    sources, pairs, notes = find_data(config, quiet=quiet)
    folder = RunFolder(output)
    initial: RestorationNetwork | None = None
    if resume:
        initial = folder.load_network()
    elif config.weights is not None:
        from deblurcli.cli.fetching import find_weights
        from deblurcli.weights.files import load_generator

        initial, _ = load_generator(find_weights(config.weights, quiet=quiet))
    if initial is not None:
        described = describe_network(config.recipe, initial.config)
        if change_recipe(described, settings) != described:
            raise UsageError(
                "--set",
                "describes another network than the one to start from",
                "leave out network, scales, channels, blocks, depths, unshuffle and block",
            )
        config = dataclasses.replace(config, recipe=described)
    trainer = Trainer(
        config,
        sources,
        folder,
        precision=number_format.name,
        initial=initial,
        training_data=notes,
        cpu=place.type == "cpu",
    )
    if trainer.accelerator.is_main_process:
        folder.prepare(config, resume=resume)
    if resume:
        trainer.resume()
    validate = None
    if pairs:
        device = "cpu" if place.type == "cpu" else str(trainer.accelerator.device)
        validate = Validation(
            pairs, limit=config.validate_limit, device=device, precision=config.precision
        )
    with console.progress(100, "%", description="training", quiet=quiet) as bar:
        shown = [0.0]

        def report(status: TrainingStatus) -> None:
            percent = round(100 * status.progress, 2)
            bar.update(percent - shown.pop())
            shown.append(percent)
            bar.set_postfix_str(describe(status))
            _log.info("%s", describe(status))

        samples = validate.sample_sheets if validate else None
        status = trainer.run(validate, report=report, samples=samples)
    trainer.close()
    if trainer.accelerator.is_main_process:
        _finish(output, status, validate, trainer.networks.ema_model, as_json=as_json, quiet=quiet)


def _finish(
    output: Path,
    status: TrainingStatus,
    validate: Validation | None,
    network: RestorationNetwork,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Draws curves and samples, and says how it ended."""
    from deblurcli.training.progress import draw_curves, draw_sheet

    made = []
    try:
        blurred = validate.measure_blurred() if validate else {}
        draw_curves(output / "metrics.csv", output / "curves.png", blurred)
        made.append(str(output / "curves.png"))
    except ImportError:  # a run without matplotlib has done its work all the same
        _log.info("no curves.png without matplotlib: pip install 'deblurcli[train]'")
    if validate is not None:
        samples = validate.restore_samples(network)
        draw_sheet(samples, output / "samples.png")
        made.append(str(output / "samples.png"))
    if as_json:
        figures = {**dataclasses.asdict(status), "folder": str(output), "pictures": made}
        console.print_json(
            {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in figures.items()
            }
        )
    elif not quiet:
        best = "best.safetensors" if validate else "last.safetensors"
        console.say(
            f"deblur: {describe(status)}; use it: deblur photo.jpg --weights {output / best}"
        )


def find_data(
    config: RunConfig, *, quiet: bool
) -> tuple[list[Source], list[Pair], tuple[str, ...]]:
    """What to train on, the pairs to validate on, and what the model card says of the data.

    Says what each folder was understood as. No picture is both trained on and validated on.
    """
    from deblurcli.data.dataset import Source, parse_source
    from deblurcli.data.layouts import (
        check_pairs,
        find_pairs,
        find_pictures,
        hold_out_scenes,
        keep_blur,
    )
    from deblurcli.data.pictures import keep_large
    from deblurcli.data.synthesis import margin_px
    from deblurcli.evaluation.metrics import SSIM_MIN_PX

    recipe, sources, held, notes = config.recipe, [], [], []
    patch_px = max(side_px for _, side_px in recipe.stages)
    for text in config.data:
        folder, weight = parse_source(text)
        try:
            pairs = keep_blur(find_pairs(folder, "train"), recipe.blur, folder)
            kinds = ", ".join(sorted({pair.kind for pair in pairs}))
            note = f"{len(pairs)} pairs ({kinds}) of {Path(folder).name}"
            said = note
            if not config.validation:
                pairs, validating = hold_out_scenes(pairs)
                held += validating
                said += f", {len(validating)} of them held out to validate on"
            check_pairs(pairs, patch_px)
            sources.append(Source(pairs=tuple(pairs), weight=weight))
        except NothingToDoError:
            photos = find_pictures(folder)
            large = keep_large(photos, patch_px + 2 * margin_px(recipe.motion))
            sources.append(Source(photos=tuple(large), weight=weight))
            said = note = f"{len(large)} sharp photos of {Path(folder).name}, blur synthesised"
        notes.append(note)
        if not quiet:
            console.say(f"deblur: {folder}: {said}")
    for path in config.validation:
        pairs = keep_blur(find_pairs(path, "test"), recipe.blur, path)
        held += pairs
        if not quiet:
            kinds = ", ".join(sorted({pair.kind for pair in pairs}))
            console.say(f"deblur: {path}: {len(pairs)} pairs ({kinds}) to validate on")
    sharp = (p for s in sources for p in (*s.photos, *(pair.sharp for pair in s.pairs)))
    trained = {path.resolve() for path in sharp}
    for pair in held:
        if pair.sharp.resolve() in trained:
            raise UsageError(
                pair.sharp,
                "is both trained on and validated on",
                "give --data the training part only, or another --val",
            )
    check_pairs(held, SSIM_MIN_PX, "give larger pictures")
    if not held:
        _log.warning("nothing to validate on: no best weights will be chosen; give --val")
    return sources, held, tuple(notes)


def describe(status: TrainingStatus) -> str:
    """One line of a training's figures."""
    left = status.seconds_left
    scores = " ".join(f"{name} {db:.2f} dB" for name, db in status.scores.items())
    parts = [
        f"step {status.step}",
        f"loss {status.loss:.4g}" if math.isfinite(status.loss) else "",
        scores,
        f"{status.samples_per_second:.1f} samples/s" if status.samples_per_second else "",
        f"{100 * status.waiting:.0f} % waiting" if status.waiting > 0.05 else "",
        f"{left / 60:.0f} min left" if left else "",
    ]
    return ", ".join(part for part in parts if part)
