"""``deblur photo.jpg -o sharp.jpg``: the default command."""

from __future__ import annotations

import sys
from contextlib import closing, nullcontext, redirect_stdout
from typing import Annotated

import typer

from deblurcli import __version__
from deblurcli.cli import options
from deblurcli.errors import UsageError

EPILOG = """\b
Examples:
  deblur photo.jpg                     writes photo-sharp.jpg beside it
  deblur photo.jpg -o sharp.jpg        one photo
  deblur a.jpg b.png -o sharp/         many, into a folder
  deblur holiday/ -r -o sharp/         a folder tree, mirrored
  deblur - -o - < in.jpg > out.jpg     through a pipe
  deblur clip.mp4 -o sharp.mp4         a video, with its sound
  deblur holiday/ --video -o sharp/    photos and videos
"""


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    """Command names for the first word, and paths for every word."""
    commands = [] if context.params.get("paths") else list(getattr(context.command, "commands", {}))
    return options.complete(*commands)(incomplete) + options.complete_path(incomplete)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"deblur {__version__}")
        raise typer.Exit


@options.grouped
def restore(
    *,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            show_default=False,
            autocompletion=_complete,
            help="Photos, videos and folders; - is standard input.",
        ),
    ] = None,
    inputs: options.InputOptions,
    targets: options.OutputOptions,
    clips: options.VideoOptions,
    network: options.NetworkOptions,
    batch: options.BatchOptions,
    console: options.ConsoleOptions,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> int:
    """Remove motion blur from photos and videos: PATH... are restored, or a COMMAND is run."""
    console.start()
    targets.check()
    if not paths:
        raise UsageError("PATH", "missing", "name a photo or a folder, see 'deblur --help'")
    if batch.workers is not None and batch.engine == "local":
        raise UsageError("--workers", "is for --engine ray", "leave it out")
    if targets.output == "-" and not batch.dry_run:
        if console.json:
            raise UsageError("--json", "standard output carries the photo", "give another -o")
        if sys.stdout.isatty():
            raise UsageError(
                "-o -", "would fill the terminal with bytes", "send it on: -o - > sharp.jpg"
            )

    from deblurcli.batch.plan import ClipOptions, check_options_apply, plan
    from deblurcli.batch.run import RunOptions, run
    from deblurcli.cli.run_report import RunReport
    from deblurcli.io.photos import ReadOptions

    planned = plan(
        paths,
        targets.output,
        recursive=inputs.recursive,
        videos=clips.video,
        to_frames=clips.frames,
        suffix=targets.suffix,
        overwrite=targets.overwrite,
        skip_existing=targets.skip_existing,
        shard=(batch.shard.number, batch.shard.count),
    )
    wishes = ClipOptions(
        clips.fps,
        clips.codec,
        clips.crf,
        clips.preset,
        clips.start,
        clips.end,
        clips.frames,
        targets.suffix or ".png",
    )
    check_options_apply(planned, wishes)
    report = RunReport(planned, console)
    if batch.dry_run:
        return report.list_jobs(network.load(quiet=console.quiet) if inputs.skip_sharp else None)
    run_options = RunOptions(
        targets.overwrite,
        targets.strip,
        targets.format,
        wishes,
        ReadOptions(targets.max_pixels, keep_damaged=targets.damaged == "keep"),
        inputs.select(planned.kinds),
        inputs.skip_sharp,
        targets.skip_existing,
    )
    with report:
        if batch.engine == "ray":
            from deblurcli.batch import ray

            choice = network.choose(quiet=console.quiet)
            running = ray.run(planned.jobs, run_options, choice, workers=batch.workers)
        elif planned.jobs:
            report.deblurrer = network.load(quiet=console.quiet)
            running = run(planned.jobs, report.deblurrer, run_options, report.show_frame)
        else:
            return report.exit_code
        # Ray prints on standard output what befalls its workers; that is for results.
        aside = redirect_stdout(sys.stderr) if batch.engine == "ray" else nullcontext()
        with closing(running), aside:
            for outcome in running:
                report.add(outcome)
    return report.exit_code
