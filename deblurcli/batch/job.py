"""A run's jobs, and the checks that they lose no data, made before any work starts.

`deblurcli.batch.plan` turns what the user named into jobs; `deblurcli.batch.run` does them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deblurcli.errors import DeblurError, UsageError, cannot_write
from deblurcli.io import media


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


@dataclass(frozen=True)
class ClipOptions:
    """The user's wishes for clips; None leaves the choice to us.

    Attributes:
        fps: frames per second of a folder of numbered frames.
        codec, crf, preset: of the encoder.
        start, end: the part to restore, in seconds.
        to_frames: write a folder of frames instead of a video.
    """

    fps: float | None = None
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    start: float | None = None
    end: float | None = None
    to_frames: bool = False


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


def refuse_idle_options(plan: Plan, options: ClipOptions) -> None:
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


def refuse_clashes(jobs: Sequence[Job], overwrite: bool) -> None:
    """Refuses jobs that would write one file twice, or over an input.

    Raises:
        UsageError: naming the first of them.
    """
    folders: dict[Path, str] = {}

    def key(path: Path) -> str:
        """The same for two names of one file, also where it does not exist yet."""
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        place = os.path.join(folders[path.parent], path.name)  # noqa: PTH118
        linked = os.path.islink(place)  # noqa: PTH114  (never raises)
        return os.path.normcase(os.path.realpath(place) if linked else place)

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


def settle_existing(result: Plan, overwrite: bool, skip_existing: bool) -> None:
    """Sorts out jobs whose target is there already.

    Raises:
        UsageError: some are, and neither replacing nor skipping them was asked for.
    """
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


def settle_unwritable(result: Plan) -> None:
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
            result.failed.append((job, cannot_write(job.target, PermissionError())))
