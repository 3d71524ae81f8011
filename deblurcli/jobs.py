"""Which files a run reads and which it writes, decided and checked before any work starts.

`plan` turns what the user named into jobs, refuses whatever would lose data, and touches
nothing. `deblurcli.pipeline` does the jobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deblurcli import media
from deblurcli.errors import DeblurError, NothingToDoError, UsageError
from deblurcli.files import output_error

PIPE = "-"
"""How the user names standard input and standard output."""


@dataclass(frozen=True)
class Job:
    """One input, and where its result goes.

    Attributes:
        source: the file to read; None is standard input.
        target: the file to write; None is standard output.
        kind: what the input is taken for; decides which pipeline does it.
    """

    source: Path | None
    target: Path | None
    kind: media.Kind = "photo"

    @property
    def source_name(self) -> str:
        return "standard input" if self.source is None else str(self.source)

    @property
    def target_name(self) -> str:
        return "standard output" if self.target is None else str(self.target)


@dataclass
class Plan:
    """What a run will do.

    Attributes:
        jobs: what is to be done, in natural order.
        done: jobs whose target exists already, left out as ``--skip-existing`` asked.
        failed: inputs that can't even be found.
    """

    jobs: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, DeblurError]] = field(default_factory=list)


def plan(
    inputs: Sequence[str],
    output: str | None = None,
    *,
    recursive: bool = False,
    videos: bool = False,
    suffix: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> Plan:
    """Decides what to read and where to write; touches nothing.

    Without `output`, ``photo.jpg`` becomes ``photo-sharp.jpg`` beside it. With one input file,
    `output` is a file, unless it is a folder or ends with a slash. With several inputs or a
    folder it is a folder, made where missing, in which the input folders' trees are mirrored.

    Args:
        inputs: files, folders, or one ``"-"`` for standard input, as the user wrote them.
        output: a file, a folder, or ``"-"`` for standard output.
        recursive: look into sub-folders too.
        videos: take the videos in folders too; one named by itself is always taken.
        suffix: ending of the output photos, with its dot; None keeps each input's own.
        overwrite: outputs may replace files, an input included if it is its own output.
        skip_existing: leave out jobs whose output exists.

    Raises:
        UsageError: two jobs would write the same file, one would replace an input, or one
            would replace an existing file and `overwrite` is false.
        NothingToDoError: the folders hold nothing to process.
        DeblurError: the folder of a single output is missing.
    """
    result = Plan()
    if PIPE in inputs or output == PIPE:
        result.jobs.append(_plan_pipe(inputs, output))
        _settle_existing(result, overwrite, skip_existing)
        return result
    into_folder = _names_folder(inputs, output)
    for source, relative in _find_sources(inputs, output, recursive, videos):
        kind = media.kind_of(source)
        target = _target(source, relative, output, into_folder)
        if suffix is not None and kind == "photo":
            target = target.with_suffix(suffix)
        job = Job(source, target, kind)
        error = _unreadable(source)
        if error is None:
            result.jobs.append(job)
        else:
            result.failed.append((job, error))
    if not result.jobs and not result.failed:
        raise NothingToDoError(
            ", ".join(inputs),
            "no photos there" if not videos else "no photos and no videos there",
            "give a photo" if recursive else "give a photo, or -r to look into sub-folders",
        )
    if output is not None and not into_folder:
        _check_file_target(Path(output))
    _refuse_clashes(result.jobs, overwrite)
    _settle_existing(result, overwrite, skip_existing)
    _settle_unwritable(result)
    return result


def _plan_pipe(inputs: Sequence[str], output: str | None) -> Job:
    if len(inputs) != 1:
        raise UsageError(PIPE, "a pipe carries one photo", "give one input")
    if output is None:
        raise UsageError(PIPE, "where to is not said", "add -o - or -o sharp.jpg")
    source = None if inputs[0] == PIPE else Path(inputs[0])
    target = None if output == PIPE else Path(output)
    if source is not None:
        if error := _unreadable(source):
            raise error
        if _is_folder(source):
            raise UsageError(source, "a folder does not fit through a pipe", "give one photo")
    if target is not None:
        if _is_folder(target):
            raise UsageError(target, "is a folder", "give a file name: -o sharp.jpg")
        _check_file_target(target)
    return Job(source, target)


def _names_folder(inputs: Sequence[str], output: str | None) -> bool:
    """Whether `output` means a folder."""
    if output is None:
        return False
    if _is_folder(output) or output.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        return True
    if len(inputs) == 1 and not _is_folder(inputs[0]):
        return False
    looks_like_file = Path(output).suffix.lower() in media.SUFFIXES
    if looks_like_file or os.path.lexists(output):
        raise UsageError(output, "names one file for several inputs", "give a folder: -o sharp/")
    return True


def _find_sources(
    inputs: Sequence[str], output: str | None, recursive: bool, videos: bool
) -> Iterator[tuple[Path, Path]]:
    """Yields each file once, with its path inside the folder that the user named."""
    # Results of an earlier run may lie in a folder inside the input's: they are no inputs.
    outputs = [] if output is None else [Path(output)]
    seen: set[Path] = set()
    for root in map(Path, inputs):
        found = [root]
        if _is_folder(root):
            try:
                found = media.find(root, recursive=recursive, videos=videos, leave_out=outputs)
            except OSError as error:
                raise _read_error(root, error) from error
        for path in found:
            if path not in seen:
                seen.add(path)
                yield path, path.relative_to(root) if path != root else Path(path.name)


def _target(source: Path, relative: Path, output: str | None, into_folder: bool) -> Path:
    if output is None:
        return source.with_name(f"{source.stem}{media.OWN_MARK}{source.suffix}")
    return Path(output) / relative if into_folder else Path(output)


def _refuse_clashes(jobs: Sequence[Job], overwrite: bool) -> None:
    folders: dict[Path, str] = {}

    def key(path: Path) -> str:
        """The same for two names of one file, also where it does not exist yet."""
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        place = os.path.join(folders[path.parent], path.name)  # noqa: PTH118
        return os.path.normcase(os.path.realpath(place) if path.is_symlink() else place)

    sources = {key(job.source): job.source for job in jobs if job.source is not None}
    targets: dict[str, Path] = {}
    for job in jobs:
        if job.target is None or job.source is None:
            continue
        place = key(job.target)
        if place in targets:
            raise UsageError(
                job.target,
                f"would be written twice, for {targets[place]} and {job.source}",
                "restore them in two runs with different -o",
            )
        targets[place] = job.source
        if place == key(job.source):
            if not overwrite:
                raise UsageError(
                    job.target,
                    "input and output are the same file",
                    "give another -o, or --overwrite to replace it",
                )
        elif place in sources:
            raise UsageError(
                job.target,
                f"the output for {job.source} would replace another input",
                "give another folder with -o",
            )


def _settle_existing(result: Plan, overwrite: bool, skip_existing: bool) -> None:
    """Sorts out jobs whose target is there already."""
    if overwrite:
        return
    existing = [j for j in result.jobs if j.target is not None and os.path.lexists(j.target)]
    if not existing:
        return
    if skip_existing:
        result.done = existing
        there = set(existing)
        result.jobs = [job for job in result.jobs if job not in there]
        return
    others = len(existing) - 1
    more = f" (and {others} other output{'s' if others > 1 else ''})" if others else ""
    raise UsageError(
        existing[0].target_name,
        f"exists already{more}",
        "give another -o, --overwrite to replace or --skip-existing to leave out",
    )


def _settle_unwritable(result: Plan) -> None:
    """Sorts out jobs whose target's folder takes no files: no use to compute them."""
    writable: dict[Path, bool] = {}

    def takes_files(folder: Path) -> bool:
        if folder not in writable:
            there = folder
            while not os.path.lexists(there) and there != there.parent:
                there = there.parent
            writable[folder] = os.access(there, os.W_OK | os.X_OK)
        return writable[folder]

    jobs, result.jobs = result.jobs, []
    for job in jobs:
        if job.target is None or takes_files(job.target.parent) or os.path.lexists(job.target):
            result.jobs.append(job)
        else:
            result.failed.append((job, output_error(job.target, PermissionError())))


def _check_file_target(target: Path) -> None:
    """Refuses early what could not be written after minutes of work."""
    if not _is_folder(target.parent):
        raise output_error(target, FileNotFoundError())
    if target.suffix and target.suffix.lower() not in media.SUFFIXES:
        raise UsageError(
            target,
            f"{target.suffix} is no format of photos or videos that deblur writes",
            "end the name in .jpg or .png, say",
        )


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises where permission is missing)


def _unreadable(source: Path) -> DeblurError | None:
    try:
        source.stat()
    except OSError as error:
        return _read_error(source, error)
    return None


def _read_error(source: Path, error: OSError) -> DeblurError:
    if isinstance(error, PermissionError):
        return DeblurError(source, "no permission to read it", "change its permissions")
    if source.is_symlink():
        return DeblurError(source, "a link that leads nowhere", "check where it points to")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DeblurError(source, "no such file or folder", "check the name")
    return DeblurError(source, f"can't be read ({error.strerror})", "check the file")
