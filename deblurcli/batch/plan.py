"""Which files a run reads and which it writes: from what the user named to jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deblurcli.batch.job import Job, Plan, refuse_clashes, settle_existing, settle_unwritable
from deblurcli.errors import (
    DeblurError,
    NothingToDoError,
    UsageError,
    cannot_read,
    cannot_write,
)
from deblurcli.io import media, photos

PIPE = "-"
"""How the user names standard input and standard output."""


def plan(
    inputs: Sequence[str],
    output: str | None = None,
    *,
    recursive: bool = False,
    videos: bool = False,
    to_frames: bool = False,
    suffix: str | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    shard: tuple[int, int] = (1, 1),
) -> Plan:
    """Decides what to read and where to write; touches nothing.

    Without `output`, ``photo.jpg`` becomes ``photo-sharp.jpg`` beside it. With one input file,
    `output` is a file, unless it is a folder or ends with a slash. With several inputs or a
    folder it is a folder, made where missing, in which the input folders' trees are mirrored.

    Args:
        inputs: files, folders, or one ``"-"`` for standard input, as the user wrote them.
        output: a file, a folder, or ``"-"`` for standard output.
        recursive: look into sub-folders too.
        videos: take the videos in folders too (one named by itself is always taken), animated
            pictures with all their frames, and a folder of numbered frames as one clip.
        to_frames: a video becomes a folder of frames instead of a video; of a single one,
            `output` is that folder itself where it is not there yet.
        suffix: ending of the output photos, with its dot; None keeps each input's own.
        overwrite: outputs may replace files, an input included if it is its own output.
        skip_existing: leave out jobs whose output exists.
        shard: (i, n) takes the i-th, the i+n-th and so on of all jobs, i from 1: machines that
            see the same folders share the work without talking to each other.

    Raises:
        UsageError: two jobs would write the same file, one would replace an input, or one
            would replace an existing file and `overwrite` is false.
        NothingToDoError: the folders hold nothing to process.
        DeblurError: the folder of a single output is missing.
    """
    result = Plan()
    if PIPE in inputs or output == PIPE:
        result.jobs.append(_plan_pipe(inputs, output, suffix))
        result.kinds.add(result.jobs[0].kind)
        settle_existing(result, overwrite, skip_existing)
        return result
    into_folder = _names_folder(inputs, output, videos, recursive, to_frames)
    found: list[Job] = []
    for source, relative in _find_sources(inputs, output, recursive, videos):
        kind = _kind(source, videos)
        name = _target_name(relative, kind, suffix, to_frames)
        found.append(Job(source, _target(source, name, output, into_folder), kind))
    if not found:
        raise NothingToDoError(
            ", ".join(inputs),
            "no photos there" if not videos else "no photos and no videos there",
            "give a photo" if recursive else "give a photo, or -r to look into sub-folders",
        )
    if output is not None and not into_folder:
        is_photo = found[0].kind == "photo"
        _check_file_target(Path(output), to_frames, suffix if is_photo else None)
    refuse_clashes(found, overwrite)
    result.kinds.update(job.kind for job in found)
    for job in found[shard[0] - 1 :: shard[1]]:
        error = None if job.source is None else _unreadable(job.source)
        if error is None:
            result.jobs.append(job)
        else:
            result.failed.append((job, error))
    settle_existing(result, overwrite, skip_existing)
    settle_unwritable(result)
    return result


def _plan_pipe(inputs: Sequence[str], output: str | None, suffix: str | None) -> Job:
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
        if target is None and media.kind_of(source) == "video":
            raise UsageError(source, "a video does not fit through a pipe", "give a file with -o")
    if target is not None:
        if _is_folder(target):
            raise UsageError(target, "is a folder", "give a file name: -o sharp.jpg")
        _check_file_target(target, suffix=suffix)
    return Job(source, target)


def _names_folder(
    inputs: Sequence[str], output: str | None, videos: bool, recursive: bool, to_frames: bool
) -> bool:
    """Whether `output` means a folder that the results lie in."""
    if output is None:
        return False
    if (
        to_frames
        and not _is_folder(output)
        and len(inputs) == 1
        and media.kind_of(Path(inputs[0])) == "video"
    ):
        return False  # the folder is the result: -o frames/ then holds the frames themselves
    if _is_folder(output) or output.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        return True
    if len(inputs) == 1 and (
        not _is_folder(inputs[0]) or _is_clip(Path(inputs[0]), output, videos, recursive)
    ):
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
        if _is_folder(root) and not _is_clip(root, output, videos, recursive):
            try:
                found = media.find(root, recursive=recursive, videos=videos, leave_out=outputs)
            except OSError as error:
                raise cannot_read(root, error) from error
        for path in found:
            if path not in seen:
                seen.add(path)
                yield path, path.relative_to(root) if path != root else Path(path.name)


def _is_clip(path: Path, output: str | None, videos: bool, recursive: bool) -> bool:
    """Whether `path` is a folder of numbered frames, to be taken as one clip.

    With -r, one with more in the folders below it is not: cameras number their photos too.
    """
    if not videos or not _is_folder(path):
        return False
    outputs = [] if output is None else [Path(output)]
    try:
        frames = media.find_clip(path)
        if not frames or not recursive:
            return bool(frames)
        return media.find(path, recursive=True, videos=True, leave_out=outputs) == frames
    except OSError as error:
        raise cannot_read(path, error) from error


def _kind(source: Path, videos: bool) -> media.Kind:
    if _is_folder(source):
        return "frames"
    return "animation" if videos and media.is_animated(source) else media.kind_of(source)


def _target_name(relative: Path, kind: media.Kind, suffix: str | None, to_frames: bool) -> Path:
    """The output's path, inside the output folder, as far as it differs from the input's."""
    if kind == "photo":
        return relative if suffix is None else relative.with_suffix(suffix)
    if kind == "animation":
        return relative
    from deblurcli.io.videos import CONTAINERS  # takes its time, and most runs hold no video

    if to_frames and kind == "video":
        return relative.with_suffix("")
    name = relative.name or relative.resolve().name
    if kind == "frames":
        return relative.with_name(f"{name}.mp4") if relative.name else Path(f"{name}.mp4")
    return relative if relative.suffix.lower() in CONTAINERS else relative.with_suffix(".mp4")


def _target(source: Path, name: Path, output: str | None, into_folder: bool) -> Path:
    if output is None:
        folder = source.parent if source.name else source.resolve().parent
        # A folder of frames has no ending, whatever stands behind a dot in its name.
        ending = name.suffix if name.suffix.lower() in media.SUFFIXES else ""
        return folder / f"{name.name.removesuffix(ending)}{media.OWN_MARK}{ending}"
    return Path(output) / name if into_folder else Path(output)


def _check_file_target(target: Path, to_frames: bool = False, suffix: str | None = None) -> None:
    """Refuses early what could not be written after minutes of work, and what contradicts the
    wanted format."""
    if not _is_folder(target.parent):
        raise cannot_write(target, FileNotFoundError())
    if to_frames:
        return
    if target.suffix and target.suffix.lower() not in media.SUFFIXES:
        raise UsageError(
            target,
            f"{target.suffix} is no format of photos or videos that deblur writes",
            "end the name in .jpg or .png, say",
        )
    if suffix is not None and target.suffix and not photos.is_same_format(target.suffix, suffix):
        raise UsageError(
            target, f"its ending contradicts --format {suffix[1:]}", "leave one of the two out"
        )


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises where permission is missing)


def _unreadable(source: Path) -> DeblurError | None:
    try:
        source.stat()
    except OSError as error:
        return cannot_read(source, error)
    return None
