"""Training recipes and runs: every value that decides how a network is trained, in one place.

Each can be overridden on the command line (``--set learning_rate=3e-4``) and is written into
the run's ``config.json``, its checkpoints and its weights files.
"""

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from deblurcli.errors import AnyPath, UsageError, cannot_read

# Numbers with the least and the most that they can sensibly be: what nothing can be trained with
# is refused where it is set, not by some tensor later on.
Share = Annotated[float, (0, 1)]
Above0 = Annotated[float, (math.ulp(0.0), math.inf)]
From0 = Annotated[float, (0, math.inf)]
Count = Annotated[int, (1, math.inf)]
CountFrom0 = Annotated[int, (0, math.inf)]
PatchSide = Annotated[int, (8, math.inf)]


@dataclass(frozen=True)
class MotionRange:
    """What kinds of motion are drawn. Lengths are in pixels of the finished picture."""

    path_px: Annotated[float, (0, 1000)] = 80.0  # longest camera path; short ones are more frequent
    weak: Share = 0.15  # whose camera path is at most 4 px
    # Typical bend of a path: how far its ends lie beside the tangent in its middle, per length.
    curvature: Annotated[float, (0, 10)] = 0.15
    rotation_degrees: Annotated[float, (0, 45)] = 1.6  # largest camera roll
    zoom: Annotated[float, (0, 0.5)] = 0.02  # largest relative change of scale
    shaky: Share = 0.2  # whose camera path is an irregular walk instead of an arc
    still: Share = 0.08  # that nothing blurs (do no harm)
    frames: Share = 0.35  # averaged from 7 to 13 frames, each blurred a little in itself
    objects: Annotated[int, (0, 100)] = 3  # most that move on their own, or have another depth
    # Averaged as encoded values, as the linear GOPRO set is; through expm1(4.8 x) / expm1(4.8),
    # about as REDS is; through a gamma of a random exponent from 1 to 5; the rest goes through
    # a gamma of 2.2, nearly as light adds up in a camera.
    encoded: Share = 0.35
    exponential: Share = 0.25
    any_gamma: Share = 0.1
    highlights: Share = 0.3  # whose brightest spots saturate
    defocus: Share = 0.12  # out of focus, before anything moves; a third of them doesn't move
    patterns: Share = 0.04  # of scenes that are stripes, grids or text instead of a photo's part


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    name: str = "default"

    # The network; channels, blocks and depths are from full size down, and what is empty is its own
    # choice. NAFNet (extra zoo) takes one number for its channels: its width.
    network: Literal["compact", "deepdeblur", "nafnet"] = "compact"
    scales: Annotated[int, (1, 8)] = 3  # levels of the pyramid, the paper's K
    channels: tuple[Annotated[int, (1, 4096)], ...] = (48, 96, 128, 128)
    # Of "deepdeblur" one number, blocks of each level; empty: (59,), (29,) or (19,) for K = 1, 2
    # or 3, which are 120 convolutions in all.
    encoder_blocks: tuple[Count, ...] = ()
    decoder_blocks: tuple[CountFrom0, ...] = ()
    depths: tuple[Count, ...] = ()  # how many of them each level uses, finest level first
    unshuffle: Annotated[int, (1, 16)] = 2  # pixel-unshuffle factor
    block: Literal["gated", "residual"] = "gated"

    # Losses.
    loss: Literal["charbonnier", "l1", "mse"] = "charbonnier"  # of the content, at every scale
    fft_weight: From0 = 0.5  # of the L1 distance of the Fourier transforms
    adversarial: From0 = 0.0  # weight of that loss on the finest scale, the paper's λ; 0: none
    discriminator: Literal["release", "paper"] = "release"  # as in the authors' code, or the paper

    # Steps.
    # Muon is for the kernels between features, with Adam for the rest.
    optimizer: Literal["adam", "adamw", "muon"] = "muon"
    betas: tuple[Share, Share] = (0.9, 0.999)  # of Adam and AdamW
    weight_decay: From0 = 0.0  # of AdamW and Muon
    learning_rate: Above0 = 2e-3  # after the warm-up
    warmup_steps: CountFrom0 = 100  # in which it rises linearly from 0
    # How it falls: constant and then linearly over the last fifth; half a cosine over the whole
    # training; or in equal factors at the milestones.
    schedule: Literal["trapezoid", "cosine", "step"] = "trapezoid"
    milestones: tuple[Share, ...] = (1 / 3,)  # of the training; the paper's: 3e5 of 9e5 steps
    final_rate: Share = 0.003  # what it ends at, as a share of `learning_rate`
    # Largest norm of the gradient; 0: not clipped. Ordinary steps of small compact networks are
    # about 0.01; without normalisation layers a rare one can undo them all.
    clip_norm: From0 = 0.03
    ema: Share = 0.999  # decay of the exponential moving average of the weights; 0: none
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"

    # Batches.
    batch: Count = 8  # pictures per step, over all processes together
    # Parts in which they pass the network, to need less memory. The discriminator learns from each.
    accumulate: Count = 1
    patch_px: PatchSide = 256
    # So much of the training uses smaller patches, quicker while the network learns the basics.
    early_share: Share = 0.6
    early_batch: Count = 16
    early_patch_px: PatchSide = 128
    crops: Literal["textured", "uniform"] = "textured"  # the roughest of three random ones, or any
    patches_per_picture: Count = 1  # neighbours in a batch from the same picture, decoded once
    # For how many steps a synthesised pair stays in use, each time with another augmentation; more
    # than 1 pays where synthesis takes longer than training.
    reuse: Count = 5

    # Pictures.
    colour: bool = True  # augment by RGB permutation and saturation, as the paper
    # What is scaled then: the distance to the mean of R, G and B, which leaves the blur of a pair
    # what it was; or, as in the paper, the saturation of HSV.
    saturation: Literal["grey", "hsv"] = "grey"
    noise: Share = 0.5  # of blurred pictures that get noise…
    jpeg: Share = 0.3  # …and JPEG artefacts
    # Noise that grows with the light; or the same all over a picture, its deviation drawn from
    # N(0, (2/255)²), as the paper.
    noise_kind: Literal["sensor", "gaussian"] = "sensor"
    rounded: bool = True  # blurred pictures are rounded to 8 bits, as files are
    blur: Literal["linear", "gamma", "both"] = "both"  # which of GOPRO's two kinds
    motion: MotionRange = field(default_factory=MotionRange)  # what blur is synthesised

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(pictures per step, side of the patches) of each stage of the training, in turn."""
        last = (self.batch, self.patch_px)
        return ((self.early_batch, self.early_patch_px), last) if self.early_share else (last,)


RECIPES = {
    "default": Recipe(),
    # Section 3 of the paper: multi-scale MSE and adversarial loss with λ = 1e-4, Adam from 5e-5,
    # a tenth of that after a third of the steps, batches of 2 patches of 256×256, Gaussian noise.
    # Compared with the authors' code (docs/training.md says where they differ).
    "paper": Recipe(
        name="paper",
        network="deepdeblur",
        loss="mse",
        fft_weight=0.0,
        adversarial=1e-4,
        optimizer="adam",
        learning_rate=5e-5,
        warmup_steps=0,
        schedule="step",
        final_rate=0.1,
        batch=2,
        early_share=0.0,
        crops="uniform",
        reuse=1,
        clip_norm=0.0,
        ema=0.0,
        precision="fp32",
        saturation="hsv",
        noise=1.0,
        jpeg=0.0,
        noise_kind="gaussian",
        rounded=False,
        blur="gamma",
    ),
}

# What networks don't have, and would ignore.
_IGNORED = {
    "deepdeblur": ("channels", "decoder_blocks", "depths", "unshuffle", "block"),
    "nafnet": ("scales", "depths", "unshuffle", "block"),
}


def load_recipe(name: str) -> Recipe:
    """One of `RECIPES`, or one from a ``.json``, ``.toml`` or ``.yaml`` file such as
    ``--show-recipe`` prints. A file may leave values out: those are of the recipe that it names,
    else of ``default``. Raises UsageError as `change_recipe`, and where there is no such recipe."""
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    reader = {".json": "json", ".toml": "tomllib", ".yaml": "yaml", ".yml": "yaml"}.get(path.suffix)
    if reader is None:
        remedy = f"give one of: {', '.join(RECIPES)}, or a .json, .toml or .yaml file"
        raise UsageError(f"recipe {name}", "there is none of this name", remedy)
    try:
        text = path.read_text("utf-8")
        module = importlib.import_module(reader)  # tomllib: Python 3.11 or later
        values = dict(module.safe_load(text) if reader == "yaml" else module.loads(text))
    except OSError as error:
        raise cannot_read(path, error, error_class=UsageError) from error
    except ImportError as error:
        raise UsageError(path, f"reading it needs {reader}", "write it as .json") from error
    except Exception as error:  # each reader has errors of its own
        raise UsageError(path, f"can't be understood ({error})", "see --show-recipe") from error
    recipe = _change_all(RECIPES.get(str(values.get("name")), Recipe()), values, path)
    _check_used(recipe, Recipe(), f"{path}: ")
    return recipe


def change_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Applies settings such as ``learning_rate=3e-4`` or ``motion.path_px=20``, whose values are
    written as JSON (``channels=[48,96,192]``) or as plain words (``loss=mse``). Raises UsageError
    for no such value, one that the network doesn't have, or one of the wrong kind or size."""
    begun = recipe
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}", "has no value", "write --set NAME=VALUE")
        value: object = text
        with suppress(ValueError):
            value = json.loads(text)
        recipe = _change(recipe, key, value, f"--set {setting}")
    _check_used(recipe, begun, "--set ")
    return recipe


def _check_used(recipe: Recipe, begun: Recipe, source: str) -> None:
    """Refuses what was changed since `begun` and would have no effect."""
    reason = f"the network {recipe.network} has no such setting"
    ignored = dict.fromkeys(_IGNORED.get(recipe.network, ()), reason)
    if recipe.schedule != "step":
        ignored["milestones"] = f"the schedule {recipe.schedule} has none"
    if not recipe.adversarial:
        ignored["discriminator"] = "without an adversarial loss there is none"
    for key, reason in ignored.items():
        if getattr(recipe, key) not in (getattr(begun, key), getattr(Recipe(), key)):
            raise UsageError(f"{source}{key}", reason, "leave it out")


def _change_all(recipe: Recipe, values: Mapping[str, object], path: AnyPath) -> Recipe:
    """`recipe` with the values of a file."""
    for key, value in _flatten(values).items():
        recipe = _change(recipe, key, value, f"{path}: {key}")
    return recipe


def _change(recipe: Recipe, key: str, value: object, source: str) -> Recipe:
    """`recipe` with one value changed, ``NAME`` or ``motion.NAME``; errors name the `source`."""
    group, _, name = key.rpartition(".")
    settings: Recipe | MotionRange = recipe.motion if group == "motion" else recipe
    kinds = get_type_hints(type(settings), include_extras=True)
    kinds.pop("motion", None)
    if group not in ("", "motion") or name not in kinds:
        raise UsageError(source, f"there is no value {name!r}", f"one of: {', '.join(kinds)}")
    try:
        converted = _convert(value, kinds[name])
        if converted == () and getattr(type(settings)(), name):
            raise ValueError("a list that is not empty")
    except ValueError as error:
        raise UsageError(source, f"{name} must be {error}", "see --show-recipe") from None
    changed = replace(settings, **{name: converted})
    return replace(recipe, motion=changed) if isinstance(changed, MotionRange) else changed


def _convert(value: Any, kind: Any) -> Any:
    """`value` as a field of the type `kind` holds it. A ValueError says what it must be."""
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and (parts[-1] is ... or len(value) == len(parts)):
            return tuple(_convert(item, parts[0]) for item in value)
        raise ValueError(f"a list{'' if parts[-1] is ... else f' of {len(parts)} numbers'}")
    if get_origin(kind) is Literal:
        if value in parts:
            return value
        raise ValueError(f"one of: {', '.join(parts)}")
    if get_origin(kind) is not Annotated:
        if type(value) is kind:
            return value
        raise ValueError("true or false" if kind is bool else "a word")
    number, (low, high) = parts
    if number is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            value = float(value)  # YAML takes 5e-05 for a word
    if type(value) is number and math.isfinite(value) and low <= value <= high:
        return value
    limits = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
    limits = "above 0" if low == math.ulp(0.0) else limits
    raise ValueError(f"{'a whole number' if number is int else 'a number'}, {limits}")


@dataclass(frozen=True)
class RunConfig:
    """All that decides a training run: what its folder keeps in ``config.json``."""

    data: tuple[str, ...] = ()  # folders to train on, as DIR or DIR=WEIGHT
    validation: tuple[str, ...] = ()  # folders to measure on; empty: scenes of `data`, held out
    recipe: Recipe = field(default_factory=Recipe)
    weights: str | None = None  # what to start from; None: from random weights
    seed: int = 0  # decides everything random
    steps: int | None = None  # when to end,
    minutes: float | None = None  # whichever comes first
    validate_every: int = 1000  # steps
    validate_limit: int = 10  # most pairs of each set; 0: all
    snapshot_every: int = 0  # steps between weights files that are kept; 0: none
    workers: int | None = None  # processes that prepare data; None: chosen by the machine
    device: str = "auto"
    precision: str = "auto"
    track: str = "tensorboard"  # or "wandb" or "none"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, path: AnyPath) -> "RunConfig":
        """Raises UsageError where there is none, or it is damaged."""
        try:
            values = json.loads(Path(path).read_text("utf-8"))
            recipe = _change_all(Recipe(), values.pop("recipe"), path)
            lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
            return cls(recipe=recipe, **(values | lists))
        except FileNotFoundError:
            reason = "no training run there to go on with"
            raise UsageError(path, reason, "leave out --resume, or give its --output") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"damaged, or not the configuration of a run ({error})"
            raise UsageError(path, reason, "give all options") from error

    def differences(self, other: "RunConfig") -> dict[str, tuple[object, object]]:
        """The names of all values that differ, with both values; the recipe's by their own."""
        # Both have a precision: the run's own counts.
        mine, others = (_flatten(asdict(c.recipe)) | vars(c) for c in (self, other))
        names = [name for name in mine if name != "recipe" and mine[name] != others[name]]
        return {name: (mine[name], others[name]) for name in names}


def _flatten(values: Mapping[str, object]) -> dict[str, object]:
    """``{"motion": {"zoom": 0}}`` as ``{"motion.zoom": 0}``."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": v for key, v in inner.items()} or {name: value}
    return flat
