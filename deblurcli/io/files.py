"""Writing files so that nothing is lost and nothing is left half-written."""

import itertools
import os
import shutil
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
    as it was. The content is on the disk before the name is. The final file has the mode of a
    normally created one, or that of the file it replaces, and, where that is permitted, its
    owner and, on Linux, its ACL and extended attributes. Where `target` is a link, the file that
    it points to is replaced and the link stays. A device or named pipe is written to directly.

    Raises UsageError where `target` exists and may not be overwritten, or is a folder, DeblurError
    where the folder is missing or not writable, or the disk is full, be it only noticed on closing.
    OSErrors that the body raises about the part file, or about no file in particular, become that.
    """
    if is_special(target):
        try:
            yield target
        except OSError as error:
            raise cannot_write(target, error) from error
        return
    check_target(target, overwrite=overwrite)
    real = Path(os.path.realpath(target))
    # A name that no other process or thread uses, not longer than file systems allow.
    ending = f".{os.getpid()}-{next(_SERIAL)}.part"
    stem = os.fsencode(real.name)[: _MAX_NAME_BYTES - len(ending)].decode("utf-8", "ignore")
    part = real.with_name(stem + ending)
    replaced: os.stat_result | None = None
    try:
        with suppress(FileNotFoundError):
            replaced = real.lstat()
        part.touch()  # what must fail fails now rather than after all the work
        mode = (replaced or part.stat()).st_mode
        part.unlink()
        yield part
        if replaced is not None:
            with suppress(OSError, AttributeError):  # only root may give files away
                os.chown(part, replaced.st_uid, replaced.st_gid)
            with suppress(OSError):  # extended attributes, of which the ACL is one
                shutil.copystat(real, part)
            os.utime(part)
        if part.stat().st_mode != mode:  # some libraries write private files
            part.chmod(stat.S_IMODE(mode))
        _sync(part)
        if not overwrite:  # a link is refused where the name is taken meanwhile, a move is not
            try:
                os.link(part, real)
            except OSError:
                check_target(target, overwrite=overwrite)  # else it is a file system without links
                part.replace(real)
        else:
            part.replace(real)
        with suppress(OSError):  # it is there, only not yet for sure
            _sync(real.parent)
    except OSError as error:
        if error.filename not in (None, os.fspath(part), os.fspath(real)):
            raise  # about another file, such as an input
        raise cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def check_target(
    target: Path, *, overwrite: bool, remedy: str = "give another -o, or --overwrite to replace it"
) -> None:
    """Raises what `atomic_output` would, before the work rather than after it: `target` exists or
    is a folder (UsageError), or its folder is missing (DeblurError)."""
    if os.path.isdir(target):  # noqa: PTH112 - false for a name too long, where Path raises
        raise UsageError(target, "is a folder", "give the name of a file")
    if not overwrite and os.path.lexists(target):
        raise already_exists(target, remedy)
    try:
        target.parent.stat()
    except OSError as error:
        raise cannot_write(target, error) from error


def make_folder_of(target: Path, remedy: str = "give another -o") -> None:
    """Raises DeblurError where the folder of a file to be written can't be made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(target, error, remedy) from error


def is_special(path: Path) -> bool:
    """Whether there is something at `path` that is written to, not replaced: a device, a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_empty(path: Path) -> bool:
    """Whether `path` is a file of 0 bytes."""
    try:
        return path.is_file() and path.stat().st_size == 0
    except OSError:
        return False


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":  # no folder can be opened there
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
