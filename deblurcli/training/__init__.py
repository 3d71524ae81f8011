"""Training: the loop (`trainer`), one step of it (`train_step`), when what changes (`schedule`),
what is kept of a run (`checkpoint`), how it is measured (`validation`) and watched (`progress`)."""

from __future__ import annotations

from deblurcli.training.checkpoint import RunFolder
from deblurcli.training.progress import TrainingStatus
from deblurcli.training.train_step import build_generator
from deblurcli.training.trainer import Trainer, Validate
from deblurcli.training.validation import Validation

__all__ = [
    "RunFolder",
    "Trainer",
    "TrainingStatus",
    "Validate",
    "Validation",
    "build_generator",
]
