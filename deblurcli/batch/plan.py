"""From what the user named to jobs: what could lose data, or fail after hours, is refused here."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from deblurcli.errors import (
    DeblurError,
    NothingToDoError,
    UsageError,
    already_exists,
    cannot_read,
    cannot_write,
)
from deblurcli.io import media, photos
from deblurcli.io.files import check_target, is_empty, is_special
from deblurcli.io.options import ClipOptions

PIPE = "-"  # how the user names standard input and standard output


@dataclass(frozen=True)
class Job:
    """One input, and where its result goes; None is standard input and standard output."""

    source: Path | None
    target: Path | None
    kind: media.Kind = "photo"

    @property
    def source_name(self) -> str:
        return str(self.source or "standard input")

    @property
    def target_name(self) -> str:
        return str(self.target or "standard output")


@dataclass
class Plan:
    """What a run will do, in natural order."""

    jobs: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)  # left out, as their target exists already
    failed: list[tuple[Job, DeblurError]] = field(default_factory=list)  # what can't be found
    kinds: set[media.Kind] = field(default_factory=set)  # of all jobs, other shards included


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
        inputs, output: as the user wrote them; ``"-"`` is standard input and standard output.
        videos: take the videos in folders too (one named by itself is always taken), animated
            pictures with all their frames, and a folder of numbered frames as one clip.
        to_frames: a video becomes a folder of frames instead of a video; of a single one,
            `output` is that folder itself where it is not there yet.
        suffix: ending of the output photos, with its dot; None keeps each input's own.
        overwrite: outputs may replace files, an input included if it is its own output.
        shard: (i, n) takes the i-th, the i+n-th and so on of all jobs, i from 1: machines that
            see the same folders share the work without talking to each other.

    Raises UsageError where two jobs would write one file, or a job replace an input or, unless
    `overwrite`, a file; NothingToDoError for empty folders; DeblurError for a missing one.
    """
    output = PIPE if output == "/dev/stdout" else output
    is_pipe = PIPE in inputs or output == PIPE
    if is_pipe:
        jobs = [_plan_pipe(inputs, output, suffix)]
    else:
        jobs = _plan_files(inputs, output, recursive, videos, to_frames, suffix)
        _check_clashes(jobs, overwrite)

    @cache
    def takes_files(folder: Path) -> bool:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        return os.access(there, os.W_OK | os.X_OK)

    result = Plan(kinds={job.kind for job in jobs})
    for job in jobs[shard[0] - 1 :: shard[1]]:
        target = job.target
        try:
            if job.source is not None:
                job.source.stat()
        except OSError as error:
            failure = cannot_read(job.source_name, error)
            if is_pipe:
                raise failure from error
            result.failed.append((job, failure))
            continue
        if target is None or is_special(target):
            result.jobs.append(job)
        elif not os.path.lexists(target) and not takes_files(target.parent):
            result.failed.append((job, cannot_write(target, PermissionError())))
        # An empty file is what a killed program leaves.
        elif os.path.lexists(target) and not overwrite and not (skip_existing and is_empty(target)):
            result.done.append(job)
        else:
            result.jobs.append(job)
    if result.done and not skip_existing:
        remedy = "give another -o, --overwrite to replace or --skip-existing to leave out"
        raise already_exists(result.done[0].target_name, remedy, others=len(result.done) - 1)
    return result


def _plan_pipe(inputs: Sequence[str], output: str | None, suffix: str | None) -> Job:
    if len(inputs) != 1:
        raise UsageError(PIPE, "a pipe carries one photo", "give one input")
    if output is None:
        raise UsageError(PIPE, "where to is not said", "add -o - or -o sharp.jpg")
    source, target = (None if name == PIPE else Path(name) for name in (inputs[0], output))
    if source is not None and (_is_folder(source) or media.kind_of(source) == "video"):
        what = "a folder" if _is_folder(source) else "a video"
        raise UsageError(source, f"{what} does not fit through a pipe", "give one photo, or -o")
    if target is not None:
        check_target(target, overwrite=True)  # what is there is looked at later
        _check_file_target(target, "photo", suffix)
    return Job(source, target)


def _plan_files(
    inputs: Sequence[str],
    output: str | None,
    recursive: bool,
    videos: bool,
    to_frames: bool,
    suffix: str | None,
) -> list[Job]:
    """A job for each file that is named or lies in a folder that is."""
    contents = find_inputs(inputs, output, recursive=recursive, videos=videos)
    first = Path(inputs[0])
    single = first if len(inputs) == 1 and contents[first] == [first] else None
    into_folder = output is not None and _names_folder(output, single, to_frames, inputs)
    found: dict[Path, Job] = {}
    for root, paths in contents.items():
        for path in paths:
            if path in found:
                continue
            relative = path.relative_to(root) if path != root else Path(path.name)
            is_clip = path == root and _is_folder(root)
            kind = "frames" if is_clip else _kind(path, videos, output)
            name = _output_name(path, relative, kind, suffix, to_frames)
            if output is None:
                # A folder of frames has no ending, whatever stands behind a dot in its name.
                ending = name.suffix if name.suffix.lower() in media.SUFFIXES else ""
                folder = path.parent if path.name else path.resolve().parent
                stem = name.name.removesuffix(ending)
                target = folder / f"{stem}{media.OWN_MARK}{ending}"
            else:
                target = Path(output) / name if into_folder else Path(output)
            found[path] = Job(path, target, kind)
    if output is not None and not into_folder:
        kind = next(iter(found.values())).kind
        _check_file_target(Path(output), kind, suffix, to_frames)
    return list(found.values())


def find_inputs(
    inputs: Sequence[str], output: str | None = None, *, recursive: bool, videos: bool = False
) -> dict[Path, list[Path]]:
    """What each input holds: a folder what `media.find` gives, all else itself.

    Raises NothingToDoError where that is nothing, DeblurError where a folder can't be read.
    """
    found = {}
    for root in map(Path, inputs):
        found[root] = [root]
        if not _is_folder(root):
            continue
        # Results of an earlier run may lie in a folder inside the input's: they are no inputs.
        results = [] if output is None else [Path(output)]
        try:
            there = media.find(root, recursive=recursive, videos=videos, leave_out=results)
            frames = media.find_clip(root) if videos else []
        except OSError as error:
            raise cannot_read(root, error) from error
        # A folder of numbered frames is one clip; but with -r, if there is more in the folders
        # below it, it is not: cameras number their photos too.
        if not frames or (recursive and there != frames):
            found[root] = there
    if not any(found.values()):
        reason = "no photos and no videos there" if videos else "no photos there"
        remedy = "give a photo" if recursive else "give a photo, or -r to look into sub-folders"
        raise NothingToDoError(", ".join(inputs), reason, remedy)
    return found


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises where permission is missing)


def _names_folder(output: str, single: Path | None, to_frames: bool, inputs: Sequence[str]) -> bool:
    """Whether `output` means a folder that results lie in; `single` is the only input, if it is."""
    if single is not None and to_frames and _kind(single, False) == "video":
        # The folder is the result: -o frames/ holds the frames themselves, now or from before.
        names = os.listdir(output) if _is_folder(output) else None  # noqa: PTH208
        frame = re.compile(r"frame-\d{6,}\.(png|jpg)")
        return names is not None and not (names and all(map(frame.fullmatch, names)))
    if _is_folder(output) or output.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        return True
    if single is None and (
        Path(output).suffix.lower() in media.SUFFIXES or os.path.lexists(output)
    ):
        why = "for several inputs" if len(inputs) > 1 else f"but {inputs[0]} is a folder"
        raise UsageError(output, f"names one file, {why}", "give a folder: -o sharp/")
    return single is None


def _kind(source: Path, videos: bool, output: str | None = None) -> media.Kind:
    """What a file is taken for: by its name, or its content where the name says nothing."""
    to_video = output is not None and Path(output).suffix.lower() in media.VIDEO_SUFFIXES
    if (videos or to_video) and media.is_animated(source):
        return "video" if to_video else "animation"
    if source.suffix.lower() in media.SUFFIXES or not source.is_file():
        return media.kind_of(source)
    return "video" if media.usual_suffix(source) in media.VIDEO_SUFFIXES else "photo"


def _output_name(
    source: Path, relative: Path, kind: media.Kind, suffix: str | None, to_frames: bool
) -> Path:
    """The output's path inside the output folder."""
    ending = relative.suffix.lower()
    if kind == "photo" and suffix is not None:
        return relative.with_suffix(suffix)
    if kind == "animation" or (kind == "photo" and (ending in photos.PHOTO_SUFFIXES or not ending)):
        return relative
    if kind == "photo":
        own = media.usual_suffix(source) or relative.suffix
        # What follows the dot of "holiday.2024" is no ending.
        is_ending = any(letter.isalpha() for letter in ending)
        return relative.with_suffix(own) if is_ending else Path(f"{relative}{own}")
    if kind == "frames":
        return Path(f"{source.name or source.resolve().name}.mp4")
    if to_frames:
        return relative.with_suffix("")
    from deblurcli.io.videos import CONTAINERS  # takes its time, and most runs hold no video

    return relative if ending in CONTAINERS else relative.with_suffix(".mp4")


def _check_file_target(
    target: Path, kind: media.Kind, suffix: str | None, to_frames: bool = False
) -> None:
    """Refuses a single output that could not be written, or contradicts ``--format``."""
    if not _is_folder(target.parent):
        raise cannot_write(target, FileNotFoundError())
    if to_frames and kind == "video":
        return
    ending, writable = target.suffix.lower(), photos.PHOTO_SUFFIXES
    if kind != "photo":
        from deblurcli.io.videos import CONTAINERS
        from deblurcli.io.videos.animations import ANIMATION_FORMATS

        writable = frozenset(ANIMATION_FORMATS if kind == "animation" else CONTAINERS)
    if ending not in writable and (ending or kind != "photo"):
        noun = {"photo": "photos", "animation": "animations"}.get(kind, "videos")
        reason = f"{ending or 'no ending'} is no format of {noun} that deblur writes"
        remedy = f"end the name in {', '.join(sorted(writable)[:-1])} or {max(writable)}"
        raise UsageError(target, reason, remedy)
    if kind == "photo" and suffix and ending and not photos.is_same_format(ending, suffix):
        reason = f"its ending contradicts --format {suffix[1:]}"
        raise UsageError(target, reason, "leave one of the two out")


def _check_clashes(jobs: Sequence[Job], overwrite: bool) -> None:
    """Refuses jobs that would write one file twice, or over an input."""

    def key(path: Path) -> str:
        """The same for two names of one file, also where it does not exist yet."""
        return os.path.normcase(os.path.realpath(path))

    sources = {key(job.source) for job in jobs if job.source is not None}
    targets: dict[str, Path] = {}
    for job in jobs:
        if job.target is None or job.source is None:
            continue
        place = key(job.target)
        if place in targets:
            reason = f"would be written twice, for {targets[place]} and {job.source}"
            raise UsageError(job.target, reason, "restore them in two runs with different -o")
        targets[place] = job.source
        is_own = place == key(job.source)
        if is_own and not overwrite:
            remedy = "give another -o, or --overwrite to replace it"
            raise UsageError(job.target, "input and output are the same file", remedy)
        if place in sources and not is_own:
            reason = f"the output for {job.source} would replace another input"
            raise UsageError(job.target, reason, "give another folder with -o")


def check_options_apply(plan: Plan, options: ClipOptions) -> None:
    """Raises UsageError for wishes for videos where there is none to apply them to."""
    if options.side_by_side and options.to_frames:
        raise UsageError("--side-by-side", "makes a video, --frames none", "leave one of them out")
    takers: dict[str, set[media.Kind]] = {"fps": {"frames"}}
    takers |= {name: {"video", "frames"} for name in ("codec", "crf", "preset")}
    takers |= {name: {"video"} for name in ("start", "end", "to_frames", "side_by_side")}
    for name, kinds in takers.items():
        wish = getattr(options, name)
        if wish is not None and wish is not False and not plan.kinds & kinds:
            option = "--frames" if name == "to_frames" else f"--{name.replace('_', '-')}"
            wanted = "folder of numbered frames" if name == "fps" else "video"
            reason = f"there is no {wanted} among the inputs"
            raise UsageError(option, reason, "add --video, or leave it out")
