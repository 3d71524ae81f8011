"""Training: the loop (`loop`), what it sees (`feed`), what learns (`learner`), when what changes
(`schedule`), what is kept of a run (`run_folder`), how it is measured (`validation`) and watched
(`watching`)."""

from __future__ import annotations

from deblurcli.training.learner import build_generator
from deblurcli.training.loop import Trainer, Validate
from deblurcli.training.run_folder import RunFolder
from deblurcli.training.schedule import Limits
from deblurcli.training.validation import Validation
from deblurcli.training.watching import Progress

__all__ = [
    "Limits",
    "Progress",
    "RunFolder",
    "Trainer",
    "Validate",
    "Validation",
    "build_generator",
]
