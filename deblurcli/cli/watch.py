"""``deblur watch IN/ -o OUT/``: restores what arrives in a folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from deblurcli.cli import console, options
from deblurcli.errors import UsageError


@options.grouped
def watch(
    *,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", autocompletion=options.complete_path, help="Where files arrive."
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where results are written."),
    ],
    recursive: options.Recursive = False,
    video: Annotated[bool, typer.Option("--video", help="Also videos that arrive.")] = False,
    format: options.Format = None,  # noqa: A002  (the option's name)
    strip: options.Strip = False,
    settle: Annotated[
        float,
        typer.Option(
            "--settle",
            metavar="SECONDS",
            parser=options.number(0.1, 3600),
            help="A file is complete when it has not changed for so long.",
        ),
    ] = 2.0,
    network: options.NetworkOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Restore photos as they arrive in a folder, once they are completely written.

    What lies there already and has no result yet is restored first. Ctrl-C ends it; started
    again, it goes on with what arrived in between.
    """
    console.start(quiet=quiet, verbose=verbose)
    if not Path(folder).is_dir():
        raise UsageError(folder or "''", "no such folder", "give the folder where files arrive")
    suffix = options.OutputOptions(format=format).suffix

    from deblurcli.batch.run import RunOptions, run
    from deblurcli.batch.watch import arrivals

    deblurrer = network.load(quiet=quiet)
    run_options = RunOptions(strip=strip, format=format)
    if not quiet:
        console.say(f"deblur: watching {folder}; Ctrl-C ends it")
    for jobs in arrivals(
        folder, output, recursive=recursive, videos=video, suffix=suffix, settle_seconds=settle
    ):
        with closing(run(jobs, deblurrer, run_options)) as running:
            for outcome in running:
                if outcome.error is not None:
                    console.say_error(outcome.error)
                elif not quiet:
                    seconds = f"{outcome.seconds:.1f} s"
                    console.say(f"deblur: wrote {outcome.job.target_name} in {seconds}")
                    for note in outcome.notes:
                        console.say(f"deblur: {outcome.job.source_name}: {note}")
    return 0
