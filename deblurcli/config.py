"""Training recipes and runs: every value that decides how a network is trained, in one place.

Each can be overridden on the command line (``--set learning_rate=3e-4``) and is written into
the run's ``config.json``, its checkpoints and its weights files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from deblurcli.errors import UsageError


@dataclass(frozen=True)
class MotionRange:
    """What kinds of motion are drawn. Lengths are pixels of the finished picture.

    Attributes:
        path_px: longest camera path; lengths are drawn with more short ones than long ones.
        weak: share of pictures whose camera path is at most 4 px.
        curvature: typical bend of a path: how far its ends lie beside the tangent in its
            middle, as a share of its length.
        rotation_degrees: largest camera roll during the exposure.
        zoom: largest relative change of scale during the exposure.
        shaky: share of pictures whose camera path is an irregular walk instead of an arc.
        still: share of pictures that nothing blurs (do no harm).
        frames: share averaged from 7 to 13 frames, each blurred a little in itself, instead of
            a continuous exposure.
        objects: largest number of objects that move on their own, or are seen at another depth.
        encoded: share averaged as encoded values, as the linear GOPRO set is.
        exponential: share averaged through expm1(4.8 x) / expm1(4.8), about as REDS is.
        any_gamma: share averaged through a gamma curve of a random exponent from 1 to 5. The
            rest goes through a gamma of 2.2, nearly as light adds up in a camera.
        highlights: share of pictures whose brightest spots saturate.
        defocus: share of scenes that are out of focus, before anything moves; a third of them
            doesn't move.
        patterns: share of scenes that are stripes, grids or text instead of a photo's part.
    """

    path_px: float = 80.0
    weak: float = 0.15
    curvature: float = 0.15
    rotation_degrees: float = 1.6
    zoom: float = 0.02
    shaky: float = 0.2
    still: float = 0.08
    frames: float = 0.35
    objects: int = 3
    encoded: float = 0.35
    exponential: float = 0.25
    any_gamma: float = 0.1
    highlights: float = 0.3
    defocus: float = 0.12
    patterns: float = 0.04


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        network: ``"compact"`` or ``"deepdeblur"``.
        scales: levels of the pyramid, the paper's K.
        channels: features per depth of the compact network.
        encoder_blocks: blocks per depth on the way down, or of each level of ``"deepdeblur"``;
            empty for the network's own: there (59,), (29,) or (19,) for K = 1, 2 or 3, which are
            120 convolutions in all.
        decoder_blocks: blocks per depth on the way up of the compact network; empty: its own.
        depths: how many of the depths each level of the compact network uses, finest level first;
            empty: all.
        unshuffle: pixel-unshuffle factor of the compact network.
        block: of the compact network, ``"gated"`` or ``"residual"``.
        loss: content loss at every scale: ``"charbonnier"``, ``"l1"`` or ``"mse"``.
        fft_weight: of the L1 distance of the Fourier transforms, beside the content loss.
        adversarial: weight of the adversarial loss on the finest scale, the paper's λ; 0: none.
        discriminator: ``"release"``, as in the authors' code; or ``"paper"``, its table.
        optimizer: ``"adam"``, ``"adamw"``; or ``"muon"`` for the kernels between features beside
            Adam for the rest.
        betas: of Adam and AdamW.
        weight_decay: of AdamW and Muon.
        learning_rate: of the optimizer, after the warm-up.
        warmup_steps: steps in which the learning rate rises linearly from 0.
        schedule: how the learning rate falls: ``"cosine"``, half of one over the whole training;
            ``"trapezoid"``, constant and then linearly over the last fifth; or ``"step"``, in
            equal factors at the milestones.
        milestones: shares of the training at which the rate falls (``"step"``). The paper's is
            after 3e5 of 9e5 steps.
        final_rate: what the schedule ends at, as a share of `learning_rate`; 1 keeps the rate
            constant.
        batch: pictures per step, over all processes together.
        accumulate: parts in which each step's pictures pass the network, to need less memory.
            The discriminator learns from each part.
        patch_px: side of the training patches.
        early_share: share of the training that uses `early_batch` patches of `early_patch_px`,
            which are quicker while the network learns the basics.
        crops: ``"textured"``, the one with most texture of three random ones; or ``"uniform"``.
        patches_per_picture: neighbours in a batch that come from the same picture, which then
            is decoded once.
        reuse: for how many steps a synthesised pair stays in use, each time with another
            augmentation; more than 1 pays where synthesis takes longer than training.
        clip_norm: largest norm of the gradient; 0: not clipped. Ordinary steps of small
            compact networks are about 0.01; without normalisation layers a rare one can undo
            them all.
        ema: decay of the exponential moving average of the weights; 0: none.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        colour: augment by RGB permutation and saturation, as the paper.
        saturation: what is scaled then: ``"grey"``, the distance to the mean of R, G and B, which
            leaves the blur of a pair what it was; or ``"hsv"``, as the paper, the saturation of
            HSV.
        noise, jpeg: share of blurred pictures that get noise, JPEG artefacts.
        noise_kind: ``"sensor"``, which grows with the light; or ``"gaussian"``, the same all over
            a picture, its deviation drawn from N(0, (2/255)²), as the paper.
        rounded: round blurred pictures to 8 bits, as files are.
        blur: of GOPRO's two kinds, ``"linear"``, ``"gamma"`` or ``"both"`` are trained on.
        motion: what blur is synthesised.
    """

    name: str = "default"
    network: Literal["compact", "deepdeblur"] = "compact"
    scales: int = 3
    channels: tuple[int, ...] = (48, 96, 128)
    encoder_blocks: tuple[int, ...] = ()
    decoder_blocks: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    unshuffle: int = 2
    block: Literal["gated", "residual"] = "gated"
    loss: Literal["charbonnier", "l1", "mse"] = "charbonnier"
    fft_weight: float = 0.5
    adversarial: float = 0.0
    discriminator: Literal["release", "paper"] = "release"
    optimizer: Literal["adam", "adamw", "muon"] = "muon"
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 0.0
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    schedule: Literal["trapezoid", "cosine", "step"] = "trapezoid"
    milestones: tuple[float, ...] = (1 / 3,)
    final_rate: float = 0.003
    batch: int = 8
    accumulate: int = 1
    patch_px: int = 256
    early_share: float = 0.6
    early_batch: int = 16
    early_patch_px: int = 128
    crops: Literal["textured", "uniform"] = "textured"
    patches_per_picture: int = 1
    reuse: int = 5
    clip_norm: float = 0.03
    ema: float = 0.999
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    colour: bool = True
    saturation: Literal["grey", "hsv"] = "grey"
    noise: float = 0.5
    jpeg: float = 0.3
    noise_kind: Literal["sensor", "gaussian"] = "sensor"
    rounded: bool = True
    blur: Literal["linear", "gamma", "both"] = "both"
    motion: MotionRange = field(default_factory=MotionRange)

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

# What numbers can sensibly be, least and most; one that is not here may be anything above 0.
_SHARE, _FROM_0 = (0.0, 1.0), (0.0, math.inf)
_SHARES = (
    *("milestones", "final_rate", "early_share", "ema", "betas", "noise", "jpeg", "shaky", "still"),
    *("weak", "frames", "encoded", "exponential", "any_gamma", "defocus", "patterns"),
    "highlights",
)
_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SHARES, _SHARE),
    **dict.fromkeys(("fft_weight", "adversarial", "weight_decay", "clip_norm"), _FROM_0),
    "warmup_steps": _FROM_0,
    "decoder_blocks": _FROM_0,
    "scales": (1, 8),
    "channels": (1, 4096),
    "unshuffle": (1, 16),
    "patch_px": (8, math.inf),
    "early_patch_px": (8, math.inf),
    "path_px": (0, 1000),
    "curvature": (0, 10),
    "rotation_degrees": (0, 45),
    "zoom": (0, 0.5),
    "objects": (0, 100),
}
# What only one network has; the other one would ignore it.
_COMPACT_ONLY = ("channels", "decoder_blocks", "depths", "unshuffle", "block")


def load_recipe(name: str) -> Recipe:
    """A recipe by its name or from a file.

    Args:
        name: a key of `RECIPES`; or a ``.json``, ``.toml`` or ``.yaml`` file such as
            ``--show-recipe`` prints. A file may leave values out: those are of the recipe that
            it names, else of ``default``.

    Raises:
        UsageError: no such recipe or value, or a value of the wrong kind or size.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix not in (".json", ".toml", ".yaml", ".yml"):
        raise UsageError(
            f"recipe {name}",
            "there is none of this name",
            f"give one of: {', '.join(RECIPES)}, or a .json, .toml or .yaml file",
        )
    values = _flatten(_read(path))
    recipe = RECIPES.get(str(values.get("name")), Recipe())
    return _change(recipe, [(f"{path}: {key}", key, value) for key, value in values.items()])


def change_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Applies settings such as ``learning_rate=3e-4`` or ``motion.path_px=20``.

    Values are written as JSON (``channels=[48,96,192]``) or as plain words (``loss=mse``).

    Raises:
        UsageError: no such value, one that the network doesn't have, or of the wrong kind or size.
    """
    changes: list[tuple[str, str, object]] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}", "has no value", "write --set NAME=VALUE")
        try:
            changes.append((f"--set {setting}", key, json.loads(text)))
        except ValueError:
            changes.append((f"--set {setting}", key, text))
    changed = _change(recipe, changes)
    for source, key, value in changes:
        if changed.network == "deepdeblur" and key in _COMPACT_ONLY:
            default = Recipe.__dataclass_fields__[key].default
            if value != default and value != list(default if isinstance(default, tuple) else ()):
                raise UsageError(
                    source, "the network deepdeblur has no such setting", "leave it out"
                )
    return changed


def _change(recipe: Recipe, changes: Sequence[tuple[str, str, object]]) -> Recipe:
    """Applies (what an error names, the value's name, the value)."""
    for source, key, value in changes:
        if key.startswith("motion."):
            motion = _replace(recipe.motion, key.removeprefix("motion."), value, source)
            recipe = replace(recipe, motion=motion)
        else:
            recipe = _replace(recipe, key, value, source)
    return recipe


def _read(path: Path) -> Mapping[str, object]:
    """The values that a file holds."""
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            document = json.loads(text)
        elif path.suffix == ".toml":
            import tomllib  # Python 3.11 or later

            document = tomllib.loads(text)
        else:
            import yaml

            document = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(path, f"can't be read ({error.strerror})", "check the path") from error
    except ImportError as error:
        raise UsageError(path, f"reading it needs {error.name}", "write it as .json") from error
    except Exception as error:  # each reader has errors of its own
        raise UsageError(path, f"can't be understood ({error})", "see --show-recipe") from error
    if not isinstance(document, dict):
        raise UsageError(path, "holds no names and values", "see --show-recipe")
    return document


def _flatten(values: Mapping[str, object]) -> dict[str, object]:
    """``{"motion": {"zoom": 0}}`` as ``{"motion.zoom": 0}``."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": v for key, v in inner.items()} or {name: value}
    return flat


_Settings = TypeVar("_Settings", Recipe, MotionRange)


def _replace(settings: _Settings, name: str, value: object, source: str) -> _Settings:
    """`settings` with one value changed; `source` is what an error names."""
    names = [f.name for f in fields(settings) if f.name != "motion"]
    if name not in names:
        raise UsageError(source, f"there is no value {name!r}", f"one of: {', '.join(names)}")
    present = getattr(settings, name)
    kind = get_type_hints(type(settings))[name]
    if isinstance(present, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(present, float) and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            value = float(value)  # YAML takes 5e-05 for a word
    if type(value) is not type(present):
        wanted = type(present).__name__
        raise UsageError(source, f"{name} is a {wanted}, such as {present!r}", "see --show-recipe")
    if isinstance(value, str):
        if get_args(kind) and value not in get_args(kind):
            words = ", ".join(get_args(kind))
            raise UsageError(source, f"{name} can't be {value!r}", f"one of: {words}")
    elif not isinstance(value, bool):
        # What nothing can be trained with is refused now, not by some tensor later on.
        least, most = _LIMITS.get(name, (math.ulp(0.0), math.inf))
        numbers = value if isinstance(value, tuple) else (value,)
        each = get_args(kind)[0] if isinstance(value, tuple) else (int, float)
        default = Recipe.__dataclass_fields__.get(name)
        may_be_empty = default is not None and default.default == ()
        if (not numbers and not may_be_empty) or not all(
            isinstance(n, each) and math.isfinite(n) and least <= n <= most for n in numbers
        ):
            limits = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
            limits = limits if name in _LIMITS else "more than 0"
            what = "a list of numbers, each " if isinstance(value, tuple) else ""
            raise UsageError(source, f"{name} must be {what}{limits}", "see --show-recipe")
    changed: dict[str, Any] = {name: value}
    return replace(settings, **changed)


@dataclass(frozen=True)
class RunConfig:
    """All that decides a training run: what its folder keeps in ``config.json``.

    Attributes:
        data: folders to train on, as ``DIR`` or ``DIR=WEIGHT``.
        validation: folders to measure on.
        recipe: how to train.
        weights: what to start from; None: from random weights.
        seed: decides everything random.
        steps, minutes: when to end, whichever comes first.
        validate_every: steps between validations.
        validate_limit: most pairs of each set to measure; 0: all.
        snapshot_every: steps between weights files that are kept; 0: none.
        workers: processes that prepare data; None: chosen by the machine.
        device, precision: as ``--device`` and ``--precision`` take them.
        track: what logs the run: ``"tensorboard"``, ``"wandb"`` or ``"none"``.
    """

    data: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    weights: str | None = None
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    validate_every: int = 1000
    validate_limit: int = 10
    snapshot_every: int = 0
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    track: str = "tensorboard"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunConfig:
        """Raises FileNotFoundError, or UsageError where the file is damaged."""
        try:
            values = json.loads(Path(path).read_text("utf-8"))
            recipe = values.pop("recipe")
            motion = MotionRange(**recipe.pop("motion"))
            known = {key: _tuples(value) for key, value in recipe.items()}
            return cls(
                recipe=Recipe(**known, motion=motion),
                **{key: _tuples(value) for key, value in values.items()},
            )
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                path, f"damaged, or not the configuration of a run ({error})", "give all options"
            ) from error

    def differences(self, other: RunConfig) -> dict[str, tuple[object, object]]:
        """The names of all values that differ, with both values; the recipe's by their own."""
        both = (
            _flatten(asdict(c.recipe)) | {k: v for k, v in asdict(c).items() if k != "recipe"}
            for c in (self, other)
        )
        mine, others = both
        return {name: (mine[name], others[name]) for name in mine if mine[name] != others[name]}


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
