"""Every failure that a user can cause or meet, as one tree.

DeblurError                  exit code 1: this input failed, others go on
├── UsageError               2: the command contradicts itself
├── NothingToDoError         3: no input to process
├── WeightsError             4: weights missing, corrupt, or of another model
└── DeviceError              5: device not available
    └── DeviceMemoryError    5: out of memory even at the smallest tile

Each error prints as one line, ``SUBJECT: reason; what to do``. Anything that is not a
`DeblurError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import os


class DeblurError(Exception):
    """An input could not be processed.

    Args:
        subject: what failed, as the user named it: a path, an option, a device.
        reason: why, in a few plain words, without a final full stop.
        remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, subject: str | os.PathLike[str], reason: str, remedy: str) -> None:
        self.subject = os.fspath(subject)
        self.reason = reason
        self.remedy = remedy
        super().__init__(self.subject, reason, remedy)

    def __str__(self) -> str:
        line = f"{self.subject}: {self.reason}; {self.remedy}"
        # A file name may hold newlines or terminal escapes; the report is one clean line.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class UsageError(DeblurError):
    """The command line or call contradicts itself or names something unknown."""

    exit_code = 2


class NothingToDoError(DeblurError):
    """There is nothing to process, for example a folder without photos."""

    exit_code = 3


class WeightsError(DeblurError):
    """Weights are missing, damaged, or belong to another network."""

    exit_code = 4


class DeviceError(DeblurError):
    """The wanted device or precision is not available here."""

    exit_code = 5


class DeviceMemoryError(DeviceError):
    """The device ran out of memory even with the smallest tile."""
