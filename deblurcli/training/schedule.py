"""How far a training is, and how its learning rate and patches change on the way."""

import math
from dataclasses import dataclass

from deblurcli.config import Recipe


@dataclass(frozen=True)
class Schedule:
    """Everything that depends on how much of the training is done. It ends after so many steps or
    minutes, whichever comes first. With neither it has no end: the rate stays, and patches are
    those of the last stage."""

    recipe: Recipe
    steps: int | None = None
    minutes: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """The part of the training that is done, 0 to 1."""
        of_steps = step / self.steps if self.steps else 0.0
        of_minutes = seconds / 60 / self.minutes if self.minutes else 0.0
        return min(max(of_steps, of_minutes), 1.0)

    def stage(self, progress: float) -> int:
        """Which of the recipe's stages it is in."""
        endless = self.steps is None and self.minutes is None
        early = progress < self.recipe.early_share and not endless
        return 0 if early else len(self.recipe.stages) - 1

    def learning_rate(self, step: int, progress: float) -> float:
        """A linear rise over the first steps, then down to the final rate: straight over the last
        fifth, along half a cosine, or at the milestones."""
        r = self.recipe
        warmup = min(1.0, (step + 1) / r.warmup_steps) if r.warmup_steps else 1.0
        if r.schedule == "step":
            passed = sum(progress >= milestone for milestone in r.milestones)
            fall = float(r.final_rate ** (passed / max(len(r.milestones), 1)))
            return r.learning_rate * warmup * fall
        height = 0.5 * (1 + math.cos(math.pi * progress))
        if r.schedule == "trapezoid":
            height = min(1.0, 5 * (1 - progress))
        return r.learning_rate * warmup * (r.final_rate + (1 - r.final_rate) * height)
