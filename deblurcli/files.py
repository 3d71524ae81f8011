"""Writing files so that nothing is lost and nothing is left half-written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deblurcli.errors import DeblurError, UsageError


@contextmanager
def atomic_output(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives the path of a ``.part`` file beside `target` and moves it there at the end.

    On any exception, KeyboardInterrupt included, the part file is removed and `target` is left
    as it was. The final file has the mode of a normally created one.

    Args:
        target: where the finished file shall lie.
        overwrite: whether an existing `target` may be replaced.

    Raises:
        UsageError: `target` exists and `overwrite` is false.
        DeblurError: the folder is missing or not writable, or the disk is full; OSErrors that
            the body raises are turned into this.
    """
    _refuse_existing(target, overwrite)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield part
        _refuse_existing(target, overwrite)
        os.replace(part, target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(target):
        raise UsageError(target, "exists already", "give another -o, or --overwrite to replace it")


def output_error(target: Path, error: OSError) -> DeblurError:
    """What to tell the user when `target` can't be written."""
    if isinstance(error, FileNotFoundError) or not target.parent.is_dir():
        return DeblurError(target, "its folder does not exist", f"make it: mkdir {target.parent}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DeblurError(target, "the disk is full", "free some space or give another -o")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return DeblurError(target, "no permission to write there", "give another -o")
    if error.errno == errno.ENAMETOOLONG:
        return DeblurError(target, "the file name is too long", "give a shorter one with -o")
    return DeblurError(target, f"can't be written ({error.strerror or error})", "give another -o")
