"""Every failure that a user can cause or meet, with its exit code.

Each prints as one line, ``SUBJECT: reason; what to do``. Anything that is not a `DeblurError` is a
bug of ours and keeps its traceback.
"""

import errno
import logging
import os
import re
import shlex
import struct
import zlib
from typing import TypeAlias

EXIT_CODES = {
    0: "all done, or skipped as already done",
    1: "at least one input failed, the rest was processed",
    2: "usage",
    3: "nothing to process",
    4: "weights missing, corrupt, or of another model",
    5: "device not available, or out of memory at the smallest tile",
    130: "interrupted",
}
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

AnyPath: TypeAlias = str | os.PathLike[str]

logger = logging.getLogger("deblurcli")
"""What is no failure, but worth a line: what was left out, what takes longer."""

# What libraries that decode pictures raise when fed with damaged data.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(EOFError, struct.error, zlib.error),
)


def one_line(text: str) -> str:
    """`text` without the newlines and terminal escapes that, say, the name of a file may hold."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DeblurError(Exception):
    """An input could not be processed; others go on.

    Args:
        subject: what failed, as the user named it: a path, an option, a device.
        reason: why, in a few plain words, without a final full stop.
        remedy: what the user can do about it.
    """

    exit_code = EXIT_FAILED

    def __init__(self, subject: AnyPath, reason: str, remedy: str) -> None:
        self.subject, self.reason, self.remedy = os.fspath(subject), reason, remedy
        super().__init__(self.subject, reason, remedy)

    def __str__(self) -> str:
        return one_line(f"{self.subject}: {self.reason}; {self.remedy}")

    def to_json(self) -> dict[str, str]:
        """The parts of the line, for programs."""
        return {"subject": self.subject, "reason": self.reason, "remedy": self.remedy}


class UsageError(DeblurError):
    """The command line or call contradicts itself or names something unknown."""

    exit_code = EXIT_USAGE


class DiskFullError(DeblurError):
    """There is no room to write; the next output would not fit either."""


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


def already_exists(
    path: AnyPath, remedy: str = "give another -o, or --overwrite to replace it", others: int = 0
) -> UsageError:
    """Makes the error for an output that is there; `others` counts further ones."""
    more = f" (and {others} other output{'s' if others > 1 else ''})" if others else ""
    return UsageError(path, f"exists already{more}", remedy)


def cannot_read(
    path: AnyPath, error: OSError, *, error_class: type[DeblurError] = DeblurError
) -> DeblurError:
    """Makes the error for an input that the system does not let us read."""
    name, reason, remedy = os.fspath(path), "no such file or folder", "check the name"
    if isinstance(error, PermissionError):
        reason, remedy = "no permission to read it", "change it: chmod u+r"
    elif os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 (never raise)
        reason, remedy = "a link that leads nowhere", "check where it points to"
    elif re.match(r"[a-z]{2,}:/", name):  # as a path it has lost a slash
        name = re.sub(":/+", "://", name, count=1)
        reason, remedy = "an address, not a file", "download it first; deblur reads files only"
    elif isinstance(error, FileNotFoundError) and set(name) & set("*?["):
        reason, remedy = "no file matches this pattern", "check the folder and the name"
    elif isinstance(error, IsADirectoryError):
        reason, remedy = "is a folder, not a file", "give the files in it"
    elif error.errno == errno.ENAMETOOLONG:
        reason = "the name is too long"
    elif not isinstance(error, FileNotFoundError | NotADirectoryError):
        reason, remedy = f"can't be read ({error.strerror or error})", "check the file"
    return error_class(name, reason, remedy)


def cannot_write(
    path: AnyPath,
    error: OSError,
    remedy: str = "give another -o",
    *,
    error_class: type[DeblurError] = DeblurError,
) -> DeblurError:
    """Makes the error for an output that the system does not let us write."""
    folder = os.path.dirname(os.fspath(path)) or "."  # noqa: PTH120 (any text, never raises)
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return error_class(path, "no permission to write there", remedy)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        full_class = DiskFullError if error_class is DeblurError else error_class
        return full_class(path, "the disk is full", f"free some space or {remedy}")
    if isinstance(error, FileNotFoundError) or not os.path.isdir(folder):  # noqa: PTH112
        missing = f"make it: mkdir -p {shlex.quote(folder)}"
        return error_class(path, "its folder does not exist", missing)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return error_class(path, "a folder and a file are mixed up", remedy)
    if error.errno == errno.ENAMETOOLONG:
        return error_class(path, "the file name is too long", "give a shorter one with -o")
    return error_class(path, f"can't be written ({error.strerror or error})", remedy)


def install(extra: str) -> str:
    """How to install one of our optional extras, from the package index or in a checkout."""
    return f"pip install 'deblurcli[{extra}]' (in a checkout: pip install '.[{extra}]')"


def not_installed(
    subject: AnyPath, package: str, extra: str, error_class: type[DeblurError] = UsageError
) -> DeblurError:
    """Makes the error for a missing package of one of our optional extras."""
    return error_class(subject, f"needs the package {package}", install(extra))


def sizes_differ(
    path: AnyPath,
    size: tuple[int, int],
    other: AnyPath,
    other_size: tuple[int, int],
    remedy: str = "give pictures of one size",
) -> DeblurError:
    """Makes the error for two pictures that have to be of one size, (width, height) in pixels."""
    sizes = f"is {size[0]}x{size[1]} pixels, but {os.fspath(other)} {other_size[0]}x{other_size[1]}"
    return DeblurError(path, sizes, remedy)


def too_small(path: AnyPath, size: tuple[int, int], min_px: int, remedy: str) -> DeblurError:
    """Makes the error for a picture of (width, height) with a side shorter than `min_px`."""
    reason = f"is {size[0]}x{size[1]} pixels, smaller than the {min_px} that are needed"
    return DeblurError(path, reason, remedy)
