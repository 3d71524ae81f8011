"""``deblur watch IN/ -o OUT/``: restores what arrives in a folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from deblurcli.cli import console, options
from deblurcli.cli.options import REQUIRED, argument, option
from deblurcli.errors import UsageError


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
        2.0,
        "A file is complete when it has not changed for so long.",
        "SECONDS",
        parser=options.number(0.1, 3600),
    ),
    weights: options.Weights = "default",
    compute: options.ComputeOptions,
) -> None:
    """Restore photos as they arrive in a folder.

    Each is taken once it is completely written. What lies there already and has no result yet is
    restored first. Ctrl-C ends it; started again, it goes on with what arrived in between.
    """
    if not Path(folder).is_dir():
        raise UsageError(folder or "''", "no such folder", "give the folder where files arrive")

    from deblurcli.batch.run import RunOptions, run
    from deblurcli.batch.watch import arrivals
    from deblurcli.io.photos import ReadOptions

    deblurrer = compute.load(weights)
    reading = ReadOptions(keep_damaged=damaged == "keep")
    run_options = RunOptions(strip=strip, format=format, reading=reading)
    console.note(f"deblur: watching {folder}; Ctrl-C ends it")
    for jobs in arrivals(
        folder, output, recursive=recursive, videos=video, suffix=format, settle_seconds=settle
    ):
        with closing(run(jobs, deblurrer, run_options)) as running:
            for outcome in running:
                if outcome.error is not None:
                    console.say_error(outcome.error)
                    continue
                seconds = f"{outcome.seconds:.1f} s"
                console.note(f"deblur: wrote {outcome.job.target_name} in {seconds}")
                for note in outcome.notes:
                    console.note(f"deblur: {outcome.job.source_name}: {note}")
