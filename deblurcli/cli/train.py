"""``deblur train``: the paper's training, or our own, on any data and any number of devices."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deblurcli.cli import console, options
from deblurcli.cli.options import option, whole_number
from deblurcli.errors import NothingToDoError, UsageError, install, logger, not_installed

if TYPE_CHECKING:
    from deblurcli.config import RunConfig
    from deblurcli.data.dataset import Source
    from deblurcli.data.layouts import Pair
    from deblurcli.training.progress import TrainingStatus

# What a resumed run may change: how long and where it trains, and how its rate goes on. Not what it
# is measured on: without --val that is held out of its data, and the best so far was best there.
MAY_CHANGE = {
    *("steps", "minutes", "validate_every", "snapshot_every", "workers"),
    *("device", "precision", "track"),
    *("learning_rate", "warmup_steps", "schedule", "milestones", "final_rate", "clip_norm"),
    *("accumulate", "patches_per_picture"),
}

EPILOG = """Data; several --data are mixed
GOPRO_Large   train/SEQUENCE/blur|blur_gamma|sharp/NNNNNN.png
REDS          train/train_blur/CLIP/..., train/train_sharp/CLIP/...
RealBlur      SCENE/blur/blur_N.png, SCENE/gt/gt_N.png
HIDE          train/NAME, test/..., GT/NAME
pairs         blur/NAME, sharp/NAME; or lq/, gt/; or input/, target/
photos        any sharp photos; blur is synthesised as training goes

Examples
several GPUs  torchrun --nproc-per-node 4 -m deblurcli train --data GOPRO/ ...
"""


@dataclass(frozen=True)
class RunOptions:
    """What `RunConfig` holds beside the recipe; None leaves it as the run was begun."""

    data: list[str] | None = option(None, "Train on this; repeatable. [required]", "DIR[=WEIGHT]")
    validation: list[Path] | None = option(
        None,
        "Pairs to measure on; repeatable. [default: each tenth scene held out]",
        "DIR",
        "--val",
    )
    weights: str | None = option(
        None, "Start from these weights.", "NAME|FILE", autocompletion=options.complete_weights
    )
    steps: int | None = whole_number(None, "Train so many steps. [default: until Ctrl-C]", 1)
    minutes: float | None = option(None, "Train so many minutes.", "N", parser=options.number(0.01))
    validate_every: int | None = whole_number(None, "Steps between validations; else 1000.", 1)
    validate_limit: int | None = whole_number(None, "Most pairs of each set, else 10; 0: all.", 0)
    snapshot_every: int | None = whole_number(None, "Steps between weights that are kept.", 1)
    workers: int | None = whole_number(
        None, "Processes that prepare data. [default: beside a GPU most cores, else 0]", 0
    )
    seed: int | None = whole_number(None, "Decides everything random. [default: 0]", 0)
    track: Literal["tensorboard", "wandb", "none"] | None = option(
        None, "What logs the run, where installed. [default: tensorboard]"
    )
    device: options.Device = "auto"
    precision: options.Precision = "auto"

    def apply(self, config: "RunConfig") -> "RunConfig":
        """`config` with what was given; with whole paths, so that runs go on from anywhere."""
        from deblurcli.data.dataset import parse_source

        given = {name: value for name, value in vars(self).items() if value not in (None, "auto")}
        if self.data is not None:
            given["data"] = tuple(
                os.path.abspath(folder) + ("" if weight == 1 else f"={weight:g}")  # noqa: PTH100
                for folder, weight in map(parse_source, self.data)
            )
        if self.validation is not None:
            given["validation"] = tuple(map(os.path.abspath, self.validation))
        return replace(config, **given)


def train(
    *,
    run: RunOptions,
    output: Path = option(Path("runs/deblur"), "The run's folder.", "DIR", "-o"),
    resume: bool = option(False, "Go on with the run in --output, as it was begun."),
    recipe: str | None = option(
        None,
        "Set of all settings, also as a .json, .toml or .yaml file. [default: default]",
        "default|paper|FILE",
        autocompletion=options.complete("default", "paper"),
    ),
    settings: list[str] | None = option(
        None, "Change a value of the recipe, or motion.NAME; repeatable.", "NAME=VALUE", "--set"
    ),
    blur: options.Blur | None = option(None, "Which of GOPRO's kinds of blur; else the recipe's."),
    show_recipe: bool = option(False, "Print all values, as --recipe FILE.json reads them."),
    json: options.Json = False,
) -> None:
    """Train a network; Ctrl-C saves, --resume goes on."""
    from deblurcli.config import RunConfig, change_recipe, load_recipe

    changes = [*(settings or []), *([f"blur={blur}"] if blur else [])]
    stored = RunConfig.load(output / "config.json") if resume else RunConfig()
    begun = stored.recipe if recipe is None else load_recipe(recipe)
    config = run.apply(replace(stored, recipe=change_recipe(begun, changes)))
    if show_recipe:
        console.print_json(asdict(config.recipe))
        return
    if not config.data:
        raise UsageError("train", "nothing to train on", "give --data DIR")
    if resume and (changed := stored.differences(config)):
        told = []
        for name, values in changed.items():
            then, now = map(spell, values)
            if name not in MAY_CHANGE:
                reason = f"the run was begun with {then}, not {now}"
                remedy = f"leave it out, or start anew with --weights {output / 'last.safetensors'}"
                raise UsageError(f"--resume: {name}", reason, remedy)
            told.append(f"{name} {now} instead of {then}")
        console.note(f"deblur: goes on with {', '.join(told)}")
    train_as(config, changes, output, resume=resume, json=json)


def train_as(  # noqa: PLR0912, PLR0915  (a run from top to bottom)
    config: "RunConfig", changes: Sequence[str], output: Path, *, resume: bool, json: bool
) -> None:
    """Trains, and shows and says how it goes; `changes` are what was asked of the network."""
    try:
        from deblurcli.training.checkpoint import RunFolder
        from deblurcli.training.trainer import Trainer
        from deblurcli.training.validation import Validation
    except ModuleNotFoundError as error:
        raise not_installed("train", error.name or "accelerate", "train") from error
    if config.steps is None and config.minutes is None:
        end = "neither --steps nor --minutes is given; --resume with one of them lets the rate fall"
        console.note(f"deblur: trains until Ctrl-C at a constant rate, as {end} at the end")
    import torch

    from deblurcli.config import change_recipe
    from deblurcli.devices import ConvolutionShape, choose_device, choose_precision
    from deblurcli.training.progress import draw_curves, draw_sheet
    from deblurcli.training.train_step import describe_network
    from deblurcli.weights import hub
    from deblurcli.weights.files import load_weights

    place = choose_device(config.device)
    if place.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", place.index or 0)))
    wanted = config.recipe.precision if config.precision == "auto" else config.precision
    if config.track == "wandb" and find_spec("wandb") is None:
        raise UsageError("--track wandb", "needs the package wandb", "pip install wandb")
    if wanted == "int8":
        raise UsageError("--precision int8", "restores only", "train in auto, fp32, bf16 or fp16")
    precision = choose_precision(wanted, place, ConvolutionShape(gated=False)).name
    sources, pairs, notes = find_data(config)
    folder = RunFolder(output)
    initial = None
    if config.weights is not None and not resume:
        initial, _ = load_weights(hub.find(config.weights, show_progress=console.show_download))
        described = describe_network(config.recipe, initial.config)
        if change_recipe(described, changes) != described:
            reason = "describes another network than the one to start from"
            remedy = "leave out network, scales, channels, blocks, depths, unshuffle and block"
            raise UsageError("--set", reason, remedy)
    trainer = Trainer(
        config,
        sources,
        folder,
        precision=precision,
        initial=initial,
        resume=resume,
        training_data=notes,
        cpu=place.type == "cpu",
    )
    if trainer.accelerator.is_main_process:
        folder.prepare(trainer.config, resume=resume)
        if trainer.schedule.progress(trainer.step, trainer.seconds) >= 1:
            done = f"{trainer.step} steps and {trainer.seconds / 60:.1f} minutes"
            logger.warning(
                f"nothing is left to train: the run has {done} already; give more --steps or "
                "--minutes, which count from its beginning"
            )
    validate, limit = None, config.validate_limit
    if pairs:
        device = "cpu" if place.type == "cpu" else str(trainer.accelerator.device)
        validate = Validation(pairs, limit=limit, device=device, precision=config.precision)
    with console.progress(100, "%", description="training") as bar:

        def report(status: "TrainingStatus") -> None:
            bar.update(round(100 * status.progress, 2) - bar.n)
            bar.set_postfix_str(describe(status))
            logger.info("%s", describe(status))

        samples = validate.restore_samples if validate else None
        status = trainer.run(validate, report=report, samples=samples)
    trainer.close()
    if not trainer.accelerator.is_main_process:
        return
    curves, sheet, pictures = output / "curves.png", output / "samples.png", []
    try:
        draw_curves(trainer.metrics, curves, validate.measure_blurred() if validate else {})
        pictures.append(str(curves))
    except ImportError:  # a run without matplotlib has done its work all the same
        logger.info("no curves.png without matplotlib: %s", install("train"))
    if validate is not None:
        draw_sheet(validate.restore_samples(trainer.networks.ema_model), sheet)
        pictures.append(str(sheet))
    if json:
        console.print_json({**asdict(status), "folder": str(output), "pictures": pictures})
    else:
        best = output / ("best.safetensors" if validate else "last.safetensors")
        console.note(f"deblur: {describe(status)}; use it: deblur photo.jpg --weights {best}")


def spell(value: object) -> str:
    """A value of a run as users write it."""
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def find_data(config: "RunConfig") -> "tuple[list[Source], list[Pair], tuple[str, ...]]":
    """What to train on, the pairs to validate on, and what the model card says of the data.

    Says what each folder was understood as. No picture is both trained on and validated on.
    """
    from deblurcli.data import layouts
    from deblurcli.data.dataset import Source, parse_source
    from deblurcli.data.pictures import keep_large
    from deblurcli.data.synthesis import margin_px
    from deblurcli.evaluation.metrics import SSIM_MIN_PX

    recipe, sources, held, notes = config.recipe, [], [], []
    patch_px = max(side_px for _, side_px in recipe.stages)

    def count(pairs: "Sequence[Pair]") -> str:
        return f"{len(pairs)} pairs ({', '.join(sorted({pair.kind for pair in pairs}))})"

    for text in config.data:
        folder, weight = parse_source(text)
        try:
            pairs = layouts.keep_blur(layouts.find_pairs(folder, "train"), recipe.blur, folder)
            said = note = f"{count(pairs)} of {Path(folder).name}"
            if not config.validation:
                pairs, validating = layouts.hold_out_scenes(pairs)
                held += validating
                said += f", {len(validating)} of them held out to validate on"
            layouts.check_pairs(pairs, patch_px)
            sources.append(Source(pairs=tuple(pairs), weight=weight))
        except NothingToDoError:
            photos = layouts.find_pictures(folder)
            large = keep_large(photos, patch_px + 2 * margin_px(recipe.motion))
            sources.append(Source(photos=tuple(large), weight=weight))
            said = note = f"{len(large)} sharp photos of {Path(folder).name}, blur synthesised"
        notes.append(note)
        console.note(f"deblur: {folder}: {said}")
    for path in config.validation:
        pairs = layouts.keep_blur(layouts.find_pairs(path, "test"), recipe.blur, path)
        held += pairs
        console.note(f"deblur: {path}: {count(pairs)} to validate on")
    sharp = (p for s in sources for p in (*s.photos, *(pair.sharp for pair in s.pairs)))
    trained = {path.resolve() for path in sharp}
    for pair in held:
        if pair.sharp.resolve() in trained:
            remedy = "give --data the training part only, or another --val"
            raise UsageError(pair.sharp, "is both trained on and validated on", remedy)
    layouts.check_pairs(held, SSIM_MIN_PX, "give larger pictures")
    if not held:
        logger.warning("nothing to validate on: no best weights will be chosen; give --val")
    return sources, held, tuple(notes)


def describe(status: "TrainingStatus") -> str:
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
