"""``deblur watch IN/ -o OUT/``: restores what arrives in a folder."""

import math
import time
from contextlib import closing
from functools import cache, partial
from pathlib import Path

from deblurcli.cli import console, options
from deblurcli.cli.options import REQUIRED, argument, number, option
from deblurcli.errors import DeblurError, NothingToDoError, UsageError


def watch(
    *,
    folder: str = argument("FOLDER", "Where files arrive."),
    output: str = option(REQUIRED, "Where results are written.", "FOLDER", "-o"),
    recursive: options.Recursive = False,
    video: bool = option(False, "Also videos that arrive."),
    format: options.Format = None,  # noqa: A002  (the option's name)
    strip: options.Strip = False,
    damaged: options.Damaged = "refuse",
    settle: float = option(
        2.0, "A file is complete when unchanged so long.", "SECONDS", parser=number(0.1, 3600)
    ),
    weights: options.Weights = "default",
    compute: options.ComputeOptions,
) -> None:
    """Restore photos as they arrive in a folder.

    Each is taken once it is completely written. What lies there already and has no result yet is
    restored first. Ctrl-C ends it; started again, it goes on with what arrived in between.
    """
    if not Path(folder).is_dir():
        raise UsageError(folder, "no such folder", "give the folder where files arrive")

    from deblurcli.batch.plan import Job, plan
    from deblurcli.batch.run import RunOptions, run
    from deblurcli.io.media import SUFFIXES
    from deblurcli.io.photos import ReadOptions

    place = Path(output)
    is_file = not place.is_dir() and (place.exists() or place.suffix.lower() in SUFFIXES)
    if is_file or place.resolve() == Path(folder).resolve():
        raise UsageError(output, "is no folder for results", "give another -o")
    deblurrer = compute.load(weights)
    reading = ReadOptions(keep_damaged=damaged == "keep")
    run_options = RunOptions(strip=strip, format=format, reading=reading, skip_existing=True)
    console.note(f"deblur: watching {folder}; Ctrl-C ends it")
    look = partial(
        plan, [folder], output, recursive=recursive, videos=video, suffix=format, skip_existing=True
    )
    # Of each file its size and time of change, and since when these are so. Looking works on every
    # file system, network disks included, where notices of changes don't.
    seen: dict[Path | None, tuple[tuple[int, int], float]] = {}

    def is_complete(job: Job) -> bool:
        """Whether a file has not changed for so long; True once, and again after a change."""
        try:
            status = Path(job.source_name).stat()
        except OSError:  # gone again
            return False
        stamp, now = (status.st_size, status.st_mtime_ns), time.monotonic()
        if job.source not in seen or seen[job.source][0] != stamp:
            seen[job.source] = stamp, now
        if not status.st_size or now - seen[job.source][1] < settle:
            return False
        seen[job.source] = stamp, math.inf
        return True

    say_once = cache(console.say)
    while True:
        jobs: list[Job] = []
        try:
            planned = look()
            jobs += filter(is_complete, planned.jobs)
            for _, refused in planned.failed:
                say_once(f"deblur: {refused}")
        except NothingToDoError:
            pass
        except DeblurError as error:  # two files whose results would have one name
            say_once(f"deblur: {error}")
        with closing(run(jobs, deblurrer, run_options)) as running:
            for outcome in running:
                if outcome.error is not None:
                    console.say_errors(outcome.error)
                elif outcome.status == "done":  # else another run wrote it meanwhile
                    seconds = f"{outcome.seconds:.1f} s"
                    console.note(f"deblur: wrote {outcome.job.target_name} in {seconds}")
                    for note in outcome.notes:
                        console.note(f"deblur: {outcome.job.source_name}: {note}")
        time.sleep(min(1.0, settle / 2))
