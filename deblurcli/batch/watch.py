"""A folder that is restored as files arrive: which of them are new and completely written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from deblurcli.batch.plan import Job, plan
from deblurcli.errors import NothingToDoError

Stamp = tuple[int, int]
"""Size and time of change of a file: what changes while it is being written."""


def arrivals(
    folder: str,
    output: str,
    *,
    recursive: bool = False,
    videos: bool = False,
    suffix: str | None = None,
    settle_seconds: float = 2.0,
) -> Iterator[list[Job]]:
    """Looks into `folder` again and again, without end; takes and raises what `plan` does.

    Looking works on every file system, network disks included, where notices of changes don't.

    Args:
        settle_seconds: a file counts as completely written when it has not changed for so long.

    Yields:
        After each look, the jobs of files that are complete and have no result yet. Each file is
        given once; one that failed again when it changes.
    """
    unchanged_since: dict[Path, tuple[Stamp, float]] = {}
    given: dict[Path, Stamp] = {}
    while True:
        try:
            jobs = plan(
                [folder],
                output,
                recursive=recursive,
                videos=videos,
                suffix=suffix,
                skip_existing=True,
            ).jobs
        except NothingToDoError:
            jobs = []
        ready = []
        for job in jobs:
            if job.source is None:
                continue
            try:
                status = job.source.stat()
            except OSError:  # gone again
                continue
            stamp, now = (status.st_size, status.st_mtime_ns), time.monotonic()
            if unchanged_since.get(job.source, (None,))[0] != stamp:
                unchanged_since[job.source] = stamp, now
            waited = now - unchanged_since[job.source][1]
            if status.st_size and waited >= settle_seconds and given.get(job.source) != stamp:
                given[job.source] = stamp
                ready.append(job)
        yield ready
        time.sleep(min(1.0, settle_seconds / 2))
