"""Which files a run reads and which it writes: from what the user named to jobs.

Everything that could lose data, or fail after hours of work, is refused here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from deblurcli.io.files import is_empty, is_special

PIPE = "-"
"""How the user names standard input and standard output."""


@dataclass(frozen=True)
class Job:
    """One input, and where its result goes.

    Attributes:
        source: the file to read; None is standard input.
        target: the file to write; None is standard output.
        kind: what the input is taken for; decides how it is restored.
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


@dataclass(frozen=True)
class ClipOptions:
    """The user's wishes for clips; None leaves the choice to us.

    Attributes:
        fps: frames per second of a folder of numbered frames.
        codec, crf, preset: of the encoder.
        start, end: the part to restore, in seconds.
        to_frames: write a folder of frames instead of a video.
        frame_suffix: of these frames, ``".png"`` or ``".jpg"``.
    """

    fps: float | None = None
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    start: float | None = None
    end: float | None = None
    to_frames: bool = False
    frame_suffix: str = ".png"


@dataclass
class Plan:
    """What a run will do.

    Attributes:
        jobs: what is to be done, in natural order.
        done: jobs whose target exists already, left out as ``--skip-existing`` asked.
        failed: inputs that can't even be found.
        kinds: of all that the inputs hold, other machines' shards included.
    """

    jobs: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, DeblurError]] = field(default_factory=list)
    kinds: set[media.Kind] = field(default_factory=set)


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
    if not all(inputs) or output == "":
        raise UsageError("''", "an empty name", "check the variable that it comes from")
    if output == "/dev/stdout":
        output = PIPE
    is_pipe = PIPE in inputs or output == PIPE
    if is_pipe:
        jobs = [_plan_pipe(inputs, output, suffix)]
    else:
        jobs = _plan_files(inputs, output, recursive, videos, to_frames, suffix)
        _check_clashes(jobs, overwrite)
    result = Plan(kinds={job.kind for job in jobs})
    for job in jobs[shard[0] - 1 :: shard[1]]:
        try:
            if job.source is not None:
                job.source.stat()
            result.jobs.append(job)
        except OSError as error:
            failure = _missing(job.source_name, inputs, error)
            if is_pipe:
                raise failure from error
            result.failed.append((job, failure))
    _drop_existing(result, overwrite, skip_existing)
    _drop_unwritable(result)
    return result


def _plan_pipe(inputs: Sequence[str], output: str | None, suffix: str | None) -> Job:
    """The one job of a run that reads standard input or writes standard output."""
    if len(inputs) != 1:
        raise UsageError(PIPE, "a pipe carries one photo", "give one input")
    if output is None:
        raise UsageError(PIPE, "where to is not said", "add -o - or -o sharp.jpg")
    source = None if inputs[0] == PIPE else Path(inputs[0])
    target = None if output == PIPE else Path(output)
    if source is not None:
        if _is_folder(source):
            raise UsageError(source, "a folder does not fit through a pipe", "give one photo")
        if target is None and media.kind_of(source) == "video":
            raise UsageError(source, "a video does not fit through a pipe", "give a file with -o")
    if target is not None:
        if _is_folder(target):
            raise UsageError(target, "is a folder", "give a file name: -o sharp.jpg")
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
    roots = [Path(text) for text in inputs]
    # Results of an earlier run may lie in a folder inside the input's: they are no inputs.
    outputs = [] if output is None else [Path(output)]
    clips = {root for root in roots if videos and _is_clip(root, outputs, recursive)}
    folders = {root for root in roots if _is_folder(root)} - clips
    is_single = len(roots) == 1 and not folders
    into_folder = output is not None and _is_output_folder(
        output, roots[0] if is_single else None, to_frames, given=inputs
    )
    found: dict[Path, Job] = {}
    for root in roots:
        paths = [root]
        if root in folders:
            try:
                paths = media.find(root, recursive=recursive, videos=videos, leave_out=outputs)
            except OSError as error:
                raise cannot_read(root, error) from error
        for path in paths:
            if path in found:
                continue
            relative = path.relative_to(root) if path != root else Path(path.name)
            kind = "frames" if path in clips else _kind(path, videos, output)
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
    if not found:
        raise _no_photos(inputs, recursive, videos)
    jobs = list(found.values())
    if output is not None and not into_folder:
        _check_file_target(Path(output), jobs[0].kind, suffix, to_frames)
    return jobs


def find_photos(inputs: Sequence[str], *, recursive: bool) -> list[Path]:
    """The photos that are named or lie in folders that are, each once, where nothing is written.

    Raises:
        UsageError: an input is empty, or standard input.
        NothingToDoError: the folders hold no photos.
        DeblurError: a folder can't be read.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        if not text or text == PIPE:
            raise UsageError(repr(text), "no file and no folder", "give photos or folders")
        try:
            folder = _is_folder(text)
            paths = media.find(Path(text), recursive=recursive) if folder else [Path(text)]
        except OSError as error:
            raise cannot_read(text, error) from error
        found.update(dict.fromkeys(paths))
    if not found:
        raise _no_photos(inputs, recursive)
    return list(found)


def _no_photos(inputs: Sequence[str], recursive: bool, videos: bool = False) -> NothingToDoError:
    return NothingToDoError(
        ", ".join(inputs),
        "no photos and no videos there" if videos else "no photos there",
        "give a photo" if recursive else "give a photo, or -r to look into sub-folders",
    )


def _is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises where permission is missing)


def _is_clip(path: Path, outputs: Sequence[Path], recursive: bool) -> bool:
    """Whether `path` is a folder of numbered frames, to be taken as one clip.

    With -r, one with more in the folders below it is not: cameras number their photos too.
    """
    if not _is_folder(path):
        return False
    try:
        frames = media.find_clip(path)
        if not frames or not recursive:
            return bool(frames)
        return media.find(path, recursive=True, videos=True, leave_out=outputs) == frames
    except OSError as error:
        raise cannot_read(path, error) from error


def _is_output_folder(
    output: str, single: Path | None, to_frames: bool, *, given: Sequence[str]
) -> bool:
    """Whether `output` means a folder that the results lie in; `single` is the only input."""
    if _is_folder(output) or output.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        # Else the folder is the result: -o frames/ then holds the frames themselves.
        is_frames = to_frames and single is not None and _kind(single, False) == "video"
        return _is_folder(output) or not is_frames
    if single is not None:
        return False
    if Path(output).suffix.lower() in media.SUFFIXES or os.path.lexists(output):
        why = "for several inputs" if len(given) > 1 else f"but {given[0]} is a folder"
        raise UsageError(output, f"names one file, {why}", "give a folder: -o sharp/")
    return True


def _kind(source: Path, videos: bool, output: str | None = None) -> media.Kind:
    """What a file is taken for: by its name, or its content where the name says nothing; an
    animation that is to become a video by what FFmpeg decodes as one."""
    to_video = output is not None and Path(output).suffix.lower() in media.VIDEO_SUFFIXES
    if (videos or to_video) and media.is_animated(source):
        decodable = source.suffix.lower() in (".gif", ".png", ".apng")
        return "video" if to_video and decodable else "animation"
    if source.suffix.lower() in media.SUFFIXES or not source.is_file():
        return media.kind_of(source)
    return "video" if media.usual_suffix(source) in media.VIDEO_SUFFIXES else "photo"


def _output_name(
    source: Path, relative: Path, kind: media.Kind, suffix: str | None, to_frames: bool
) -> Path:
    """The output's path, inside the output folder, as far as it differs from the input's."""
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
        name = f"{relative.name or relative.resolve().name}.mp4"
        return relative.with_name(name) if relative.name else Path(name)
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
        raise UsageError(
            target,
            f"{ending or 'no ending'} is no format of {noun} that deblur writes",
            f"end the name in {', '.join(sorted(writable)[:-1])} or {max(writable)}",
        )
    if kind == "photo" and suffix and ending and not photos.is_same_format(ending, suffix):
        raise UsageError(
            target, f"its ending contradicts --format {suffix[1:]}", "leave one of the two out"
        )


def _check_clashes(jobs: Sequence[Job], overwrite: bool) -> None:
    """Refuses jobs that would write one file twice, or over an input."""
    folders: dict[Path, str] = {}

    def key(path: Path) -> str:
        """The same for two names of one file, also where it does not exist yet."""
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        place = os.path.join(folders[path.parent], path.name)  # noqa: PTH118
        linked = os.path.islink(place)  # noqa: PTH114  (never raises)
        return os.path.normcase(os.path.realpath(place) if linked else place)

    sources = {key(job.source) for job in jobs if job.source is not None}
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


def _missing(source: str, given: Sequence[str], error: OSError) -> DeblurError:
    """What to say of an input that is not there: it may have been meant for something else."""
    for text in given:
        if "://" in text and Path(text) == Path(source):
            remedy = "download it first; deblur reads files only"
            return DeblurError(text, "an address, not a file", remedy)
    if isinstance(error, FileNotFoundError) and any(letter in source for letter in "*?["):
        return DeblurError(source, "no file matches this pattern", "check the folder and the name")
    return cannot_read(source, error)


def _drop_existing(result: Plan, overwrite: bool, skip_existing: bool) -> None:
    """Moves jobs whose target is there already to `done`; refuses them unless that is wanted."""
    existing = [
        job
        for job in result.jobs
        if job.target is not None
        and os.path.lexists(job.target)
        and not is_special(job.target)
        # An empty file is what a killed program leaves.
        and not (skip_existing and is_empty(job.target))
    ]
    if overwrite or not existing:
        return
    if not skip_existing:
        raise already_exists(
            existing[0].target_name,
            "give another -o, --overwrite to replace or --skip-existing to leave out",
            others=len(existing) - 1,
        )
    result.done = existing
    result.jobs = [job for job in result.jobs if job not in set(existing)]


def _drop_unwritable(result: Plan) -> None:
    """Moves jobs whose target's folder takes no files to `failed`: no use to compute them."""
    takes_files: dict[Path, bool] = {}
    jobs, result.jobs = result.jobs, []
    for job in jobs:
        if job.target is None or os.path.lexists(job.target):
            result.jobs.append(job)
            continue
        folder = there = job.target.parent
        if folder not in takes_files:
            while not os.path.lexists(there) and there != there.parent:
                there = there.parent
            takes_files[folder] = os.access(there, os.W_OK | os.X_OK)
        if takes_files[folder]:
            result.jobs.append(job)
        else:
            result.failed.append((job, cannot_write(job.target, PermissionError())))


def check_options_apply(plan: Plan, options: ClipOptions) -> None:
    """Refuses wishes for videos where there is none to apply them to.

    Raises:
        UsageError: an option is given that none of the inputs can take.
    """
    takers: dict[str, set[media.Kind]] = {
        "fps": {"frames"},
        "codec": {"video", "frames"},
        "crf": {"video", "frames"},
        "preset": {"video", "frames"},
        "start": {"video"},
        "end": {"video"},
        "to_frames": {"video"},
    }
    for name, kinds_taken in takers.items():
        given = getattr(options, name)
        if given is not None and given is not False and not plan.kinds & kinds_taken:
            option = "--frames" if name == "to_frames" else f"--{name}"
            wanted = "folder of numbered frames" if name == "fps" else "video"
            raise UsageError(
                option, f"there is no {wanted} among the inputs", "add --video, or leave it out"
            )
