"""How long a training lasts, and how its learning rate and patches change on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deblurcli.config import Recipe


@dataclass(frozen=True)
class Limits:
    """When a training ends: after so many steps or minutes, whichever comes first."""

    steps: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Schedule:
    """Everything that depends on how much of the training is done."""

    recipe: Recipe
    limits: Limits

    def share(self, step: int, seconds: float) -> float:
        """The part of the training that is done, 0 to 1."""
        shares = [0.0]
        if self.limits.steps:
            shares.append(step / self.limits.steps)
        if self.limits.minutes:
            shares.append(seconds / 60 / self.limits.minutes)
        return min(max(shares), 1.0)

    def is_early(self, share: float) -> bool:
        """Whether the smaller patches are used."""
        return share < self.recipe.early_share

    def learning_rate(self, step: int, share: float) -> float:
        """A linear rise over the first steps, then down to the final rate: along half a cosine,
        straight over the last fifth, or at once after a third of the training."""
        r = self.recipe
        warmup = min(1.0, (step + 1) / r.warmup_steps) if r.warmup_steps else 1.0
        if r.schedule == "step":
            height = 1.0 if share < 1 / 3 else 0.0
        elif r.schedule == "trapezoid":
            height = min(1.0, 5 * (1 - share))
        else:
            height = 0.5 * (1 + math.cos(math.pi * share))
        return r.learning_rate * warmup * (r.final_rate + (1 - r.final_rate) * height)
