"""Training recipes: every value that decides how a network is trained, in one place.

Each can be overridden on the command line (``--set learning_rate=3e-4``) and is written into
the checkpoint and the weights file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from deblurcli.errors import UsageError
from deblurcli.synthesis import MotionRange


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
        final_rate: what the cosine schedule ends at, as a share of `learning_rate`; 1 keeps
            the rate constant.
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
        noise, jpeg: share of blurred pictures that get sensor noise, JPEG artefacts.
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
    noise: float = 0.3
    jpeg: float = 0.3
    motion: MotionRange = field(default_factory=MotionRange)


RECIPES = {
    "default": Recipe(),
    # Section 3 and 4.1 of the paper: multi-scale MSE and adversarial loss with λ = 1e-4, Adam
    # from 5e-5, batches of 2 patches of 256×256.
    "paper": Recipe(
        name="paper",
        network="deepdeblur",
        loss="mse",
        frequency=0.0,
        adversarial=1e-4,
        optimizer="adam",
        learning_rate=5e-5,
        warmup_steps=0,
        final_rate=0.1,
        batch=2,
        early_share=0.0,
        reuse=1,
        clip_norm=0.0,
        ema=0.0,
        noise=1.0,
        jpeg=0.0,
    ),
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
        UsageError: no such value, or of the wrong kind.
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
    return replace(settings, **{name: value})
