"""Writing files so that nothing is lost and nothing is left half-written."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deblurcli.errors import UsageError, already_exists, cannot_write

_SERIAL = itertools.count()
_MAX_NAME_BYTES = 255


@contextmanager
def atomic_output(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives the path of a ``.part`` file beside `target` and moves it there at the end.

    On any exception, KeyboardInterrupt included, the part file is removed and `target` is left
    as it was. The final file has the mode of a normally created one. Where `target` is a link,
    the file that it points to is replaced and the link stays. A device or named pipe is written
    to directly.

    Args:
        target: where the finished file shall lie.
        overwrite: whether an existing `target` may be replaced.

    Raises:
        UsageError: `target` exists and `overwrite` is false.
        DeblurError: the folder is missing or not writable, `target` is a folder, or the disk is
            full, be it only noticed on closing; OSErrors that the body raises about the part
            file, or about no file in particular, are turned into this.
    """
    if _is_special(target):
        try:
            yield target
        except OSError as error:
            raise cannot_write(target, error) from error
        return
    _refuse_existing(target, overwrite)
    real = Path(os.path.realpath(target))
    part = _part_path(real)
    try:
        # What must fail fails now rather than after all the work.
        with suppress(FileNotFoundError):
            real.lstat()
        part.touch()
        mode = part.stat().st_mode
        part.unlink()
        yield part
        if part.stat().st_mode != mode:  # some libraries write private files
            part.chmod(stat.S_IMODE(mode))
        _move(part, real, overwrite)
    except FileExistsError:  # it came into being while we were at work
        _refuse_existing(target, overwrite)
        raise
    except OSError as error:
        if error.filename not in (None, os.fspath(part), os.fspath(real)):
            raise  # about another file, such as an input
        raise cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _part_path(real: Path) -> Path:
    """A name that no other process or thread uses, not longer than file systems allow."""
    ending = f".{os.getpid()}-{next(_SERIAL)}.part"
    name = os.fsencode(real.name)[: _MAX_NAME_BYTES - len(ending)]
    return real.with_name(os.fsdecode(name).encode("utf-8", "ignore").decode() + ending)


def _move(part: Path, real: Path, overwrite: bool) -> None:
    if not overwrite:
        # A link is refused where the name is taken, a move would silently replace it.
        try:
            os.link(part, real)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(real):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        else:
            return
    part.replace(real)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if os.path.isdir(target):  # noqa: PTH112 - false for a name too long, where Path raises
        raise UsageError(target, "is a folder", "give a file name with -o")
    if not overwrite and os.path.lexists(target):
        raise already_exists(target)
