"""Training recipes: every value that decides how a network is trained, in one place.

Each can be overridden on the command line (``--set learning_rate=3e-4``) and is written into
the checkpoint and the weights file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from deblurcli.data.synthesis import MotionRange
from deblurcli.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        network: ``"compact"`` or ``"deepdeblur"``.
        scales: levels of the pyramid, the paper's K.
        channels: features per depth of the compact network.
        unshuffle: how much coarser than its picture the compact network computes.
        block: of the compact network, ``"gated"`` or ``"residual"``.
        loss: content loss at every scale: ``"charbonnier"``, ``"l1"`` or ``"mse"``.
        frequency: weight of the L1 distance of the Fourier transforms, beside the content loss.
        adversarial: weight of the adversarial loss on the finest scale, the paper's λ; 0: none.
        optimizer: ``"adam"``, or ``"muon"`` for the kernels between features beside Adam for
            the rest.
        learning_rate: of the optimizer, after the warm-up.
        warmup_steps: steps in which the learning rate rises linearly from 0.
        schedule: how the learning rate falls: ``"cosine"``, half of one over the whole training;
            ``"trapezoid"``, constant and then linearly over the last fifth;
            or ``"step"``, at once when a third is done, as the paper after 3e5 of 9e5 steps.
        final_rate: what the schedule ends at, as a share of `learning_rate`; 1 keeps the rate
            constant.
        batch: pictures per step, over all processes together.
        patch_px: side of the training patches.
        early_share: share of the training that uses `early_batch` patches of `early_patch_px`,
            which are quicker while the network learns the basics.
        reuse: for how many steps a synthesised pair stays in use, each time with another
            augmentation; more than 1 pays where synthesis takes longer than training.
        clip_norm: largest norm of the gradient; 0: not clipped. Ordinary steps of small
            compact networks are about 0.01; without normalisation layers a rare one can undo
            them all.
        ema: decay of the running mean of the weights; 0: none.
        colour: augment by RGB permutation and saturation, as the paper.
        saturation: what is scaled then: ``"grey"``, the distance to the mean of R, G and B, which
            leaves the blur of a pair what it was; or ``"hsv"``, as the paper, the saturation of
            HSV.
        noise, jpeg: share of blurred pictures that get noise, JPEG artefacts.
        noise_kind: ``"sensor"``, which grows with the light; or ``"gaussian"``, the same all over
            a picture, its deviation drawn from N(0, (2/255)²), as the paper.
        motion: what blur is synthesised.
    """

    name: str = "default"
    network: Literal["compact", "deepdeblur"] = "compact"
    scales: int = 3
    channels: tuple[int, ...] = (48, 96, 128)
    unshuffle: int = 2
    block: Literal["gated", "residual"] = "gated"
    loss: Literal["charbonnier", "l1", "mse"] = "charbonnier"
    frequency: float = 0.5
    adversarial: float = 0.0
    optimizer: Literal["adam", "muon"] = "muon"
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    schedule: Literal["trapezoid", "cosine", "step"] = "trapezoid"
    final_rate: float = 0.003
    batch: int = 8
    patch_px: int = 256
    early_share: float = 0.6
    early_batch: int = 16
    early_patch_px: int = 128
    reuse: int = 5
    clip_norm: float = 0.03
    ema: float = 0.999
    colour: bool = True
    saturation: Literal["grey", "hsv"] = "grey"
    noise: float = 0.5
    jpeg: float = 0.3
    noise_kind: Literal["sensor", "gaussian"] = "sensor"
    motion: MotionRange = field(default_factory=MotionRange)


RECIPES = {
    "default": Recipe(),
    # Section 3 of the paper: multi-scale MSE and adversarial loss with λ = 1e-4, Adam from 5e-5,
    # a tenth of that after a third of the steps, batches of 2 patches of 256×256, Gaussian noise.
    # Compared with the authors' code (docs/training.md says where they differ).
    "paper": Recipe(
        name="paper",
        network="deepdeblur",
        loss="mse",
        frequency=0.0,
        adversarial=1e-4,
        optimizer="adam",
        learning_rate=5e-5,
        warmup_steps=0,
        schedule="step",
        final_rate=0.1,
        batch=2,
        early_share=0.0,
        reuse=1,
        clip_norm=0.0,
        ema=0.0,
        saturation="hsv",
        noise=1.0,
        jpeg=0.0,
        noise_kind="gaussian",
    ),
}

# What numbers can sensibly be, least and most; one that is not here may be anything above 0.
_SHARE = (0.0, 1.0)
_LIMITS: dict[str, tuple[float, float]] = {
    "scales": (1, 8),
    "channels": (1, 4096),
    "unshuffle": (1, 16),
    "frequency": (0, math.inf),
    "adversarial": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "final_rate": _SHARE,
    "batch": (1, math.inf),
    "patch_px": (8, math.inf),
    "early_share": _SHARE,
    "early_batch": (1, math.inf),
    "early_patch_px": (8, math.inf),
    "reuse": (1, math.inf),
    "clip_norm": (0, math.inf),
    "ema": _SHARE,
    "noise": _SHARE,
    "jpeg": _SHARE,
    "path_px": (0, 1000),
    "curvature": (0, 10),
    "rotation_degrees": (0, 45),
    "zoom": (0, 0.5),
    "shaky": _SHARE,
    "still": _SHARE,
    "objects": (0, 100),
    "weak": _SHARE,
    "frames": _SHARE,
    "encoded": _SHARE,
    "exponential": _SHARE,
    "any_gamma": _SHARE,
    "defocus": _SHARE,
    "patterns": _SHARE,
    "highlights": _SHARE,
}


def find_recipe(name: str) -> Recipe:
    """Raises UsageError for a name that there is not."""
    if name not in RECIPES:
        raise UsageError(
            f"recipe {name}", "there is none of this name", f"give one of: {', '.join(RECIPES)}"
        )
    return RECIPES[name]


def change_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Applies settings such as ``learning_rate=3e-4`` or ``motion.path_px=20``.

    Values are written as JSON (``channels=[48,96,192]``) or as plain words (``loss=mse``).

    Raises:
        UsageError: no such value, or of the wrong kind or size.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not equals:
            raise UsageError(f"--set {setting}", "has no value", "write --set NAME=VALUE")
        if name.startswith("motion."):
            motion = _replace(recipe.motion, name.removeprefix("motion."), value, setting)
            recipe = replace(recipe, motion=motion)
        else:
            recipe = _replace(recipe, name, value, setting)
    return recipe


def _replace(settings: Any, name: str, value: Any, setting: str) -> Any:
    names = [f.name for f in fields(settings) if f.name != "motion"]
    if name not in names:
        raise UsageError(
            f"--set {setting}", f"there is no value {name!r}", f"one of: {', '.join(names)}"
        )
    present = getattr(settings, name)
    if isinstance(present, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(present, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(present):
        raise UsageError(
            f"--set {setting}",
            f"{name} is a {type(present).__name__}, such as {present!r}",
            "see --show-recipe",
        )
    words = get_args(get_type_hints(type(settings))[name])
    if isinstance(value, str) and words and value not in words:
        raise UsageError(
            f"--set {setting}", f"{name} can't be {value!r}", f"one of: {', '.join(words)}"
        )
    _check_size(name, value, setting)
    return replace(settings, **{name: value})


def _check_size(name: str, value: Any, setting: str) -> None:
    """Numbers that nothing can be trained with are refused now, not by some tensor later on."""
    least, most = _LIMITS.get(name, (math.ulp(0.0), math.inf))
    numbers = value if isinstance(value, tuple) else (value,)
    if isinstance(value, str | bool):
        return
    kind = int if isinstance(value, tuple) else (int, float)
    if not numbers or not all(
        isinstance(n, kind) and math.isfinite(n) and least <= n <= most for n in numbers
    ):
        limits = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        wanted = limits if name in _LIMITS else "more than 0"
        each = "a list of whole numbers, each " if isinstance(value, tuple) else ""
        raise UsageError(f"--set {setting}", f"{name} must be {each}{wanted}", "see --show-recipe")
