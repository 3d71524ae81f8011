"""``deblur photo.jpg -o sharp.jpg``: the default command."""

import sys
from collections import ChainMap
from contextlib import closing, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import typer

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.cli.compare import check_page, report_page, show_progress
from deblurcli.cli.options import Region, Shard, argument, complete, option, whole_number
from deblurcli.errors import EXIT_FAILED, UsageError

EPILOG = """Examples
deblur photo.jpg                     writes photo-sharp.jpg beside it
deblur photo.jpg -o sharp.jpg        one photo
deblur a.jpg b.png -o sharp/         many, into a folder
deblur holiday/ -r -o sharp/         a folder tree, mirrored
deblur - -o - < in.jpg > out.jpg     through a pipe
deblur clip.mp4 -o sharp.mp4         a video, with its sound
deblur holiday/ --video -o sharp/    photos and videos
"""


@dataclass(frozen=True)
class InputOptions:
    """What is restored."""

    heading: ClassVar[str] = options.INPUT
    recursive: options.Recursive = False
    mask: Path | None = option(None, "Restore only what is white in this picture.", "FILE")
    region: Region | None = option(
        None, "Restore only this part of each photo, in pixels.", "X,Y,W,H", parser=Region.parse
    )
    skip_sharp: bool = option(False, "Leave sharp photos alone; with --dry-run, tell which.")


@dataclass(frozen=True)
class OutputOptions:
    """Where results go and in which form, and which photos are accepted."""

    heading: ClassVar[str] = options.OUTPUT
    output: str | None = option(None, "File or folder; - is standard output.", "PATH", "-o")
    format: options.Format = None
    strip: options.Strip = False
    damaged: options.Damaged = "refuse"
    max_pixels: int = whole_number(
        500_000_000, "Refuse photos with more pixels, and files of more than 8 bytes for each.", 1
    )


@dataclass(frozen=True)
class VideoOptions:
    """Whether videos, animations and numbered frames are restored, and what they become."""

    heading: ClassVar[str] = options.VIDEO
    video: bool = option(False, "Also videos in folders, animations and folders of frames.")
    frames: bool = option(False, "Videos become folders of frames: PNG, or JPEG with --format jpg.")
    preview: int | None = whole_number(None, "Only N frames of a video, compared in a page.", 1)


@dataclass(frozen=True)
class ClipWishes:
    """Which part of a clip is restored, and how it is encoded: fields of `ClipOptions`."""

    heading: ClassVar[str] = options.VIDEO
    fps: float | None = option(
        None, "Frames a second of numbered frames; else 30.", "N", parser=options.parse_fps
    )
    start: float | None = option(
        None, "Where to begin in a video: seconds, or 1:30.", "TIME", parser=options.parse_seconds
    )
    end: float | None = option(None, "Where to end.", "TIME", parser=options.parse_seconds)
    side_by_side: bool = option(False, "Twice as wide: left as it was, right restored.")
    codec: str | None = option(
        None,
        "Video codec; else what suits the container and the input.",
        "h264|hevc|vp9|av1|...",
        autocompletion=complete("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "ffv1"),
    )
    crf: int | None = whole_number(None, "Quality by codec, smaller is better; H.264: 16.", 0)
    preset: str | None = option(None, "Speed against size, by codec; H.264: medium.", "NAME")


@dataclass(frozen=True)
class BatchOptions:
    """Which part of a batch is done, and by whom."""

    heading: ClassVar[str] = options.RUN
    dry_run: options.DryRun = False
    shard: Shard | None = option(
        None, "Do only the I-th of N parts, one for each machine.", "I/N", parser=Shard.parse
    )
    engine: Literal["local", "ray"] = option("local", "Run here, or on Ray (at RAY_ADDRESS).")
    workers: int | None = whole_number(None, "Ray's workers; else one for each GPU or 4 CPUs.", 1)


def complete_word(context: typer.Context, incomplete: str) -> list[str]:
    """Command names for the first word, and paths for every word."""
    commands = [] if context.params.get("paths") else list(getattr(context.command, "commands", {}))
    return complete(*commands)(incomplete)


def restore(  # noqa: PLR0912, PLR0915 - one page, from the options to the exit code
    *,
    paths: list[str] | None = argument(
        "PATH", "Photos, videos, folders; - is standard input.", None, autocompletion=complete_word
    ),
    inputs: InputOptions,
    targets: OutputOptions,
    existing: options.ExistingOptions,
    clips: VideoOptions,
    encoding: ClipWishes,
    weights: options.Weights = "default",
    compute: options.ComputeOptions,
    batch: BatchOptions,
    json: options.Json = False,
    version: bool = option(False, "Show the version and exit.", is_eager=True),
) -> int:
    """Remove motion blur from photos and videos: PATHs are restored, or a COMMAND is run."""
    if version:
        print(f"deblur {__version__}")
        return 0
    if not paths:
        raise UsageError("PATH", "missing", "name a photo or a folder, see 'deblur --help'")
    if batch.workers is not None and batch.engine == "local":
        raise UsageError("--workers", "is for --engine ray", "leave it out")
    if targets.output in ("-", "/dev/stdout") and not batch.dry_run:
        if json:
            raise UsageError("--json", "standard output carries the photo", "give another -o")
        if sys.stdout.isatty():
            reason = "would fill the terminal with bytes"
            raise UsageError("-o -", reason, "send it on: -o - > sharp.jpg")

    from deblurcli.batch.plan import check_options_apply, plan
    from deblurcli.batch.run import RunOptions, run
    from deblurcli.batch.selection import Selection
    from deblurcli.cli.run_report import RunReport
    from deblurcli.io.options import ClipOptions
    from deblurcli.io.photos import ReadOptions

    if clips.preview is not None:
        groups = map(vars, (inputs, targets, existing, clips, encoding, batch))
        return preview(paths, dict(ChainMap(*groups)), compute, weights, json=json)
    planned = plan(
        paths,
        targets.output,
        recursive=inputs.recursive,
        videos=clips.video,
        to_frames=clips.frames,
        suffix=targets.format,
        shard=batch.shard or (1, 1),
        **vars(existing),
    )
    suffix = targets.format or ".png"
    wishes = ClipOptions(**vars(encoding), to_frames=clips.frames, suffix=suffix)
    check_options_apply(planned, wishes)
    reading = ReadOptions(targets.max_pixels, keep_damaged=targets.damaged == "keep")
    report = RunReport(planned, json=json)
    if batch.dry_run:
        estimates = inputs.skip_sharp or any(job.kind == "video" for job in planned.jobs)
        network = compute.load(weights) if estimates and not clips.frames else None
        return report.list_jobs(network, wishes, reading if inputs.skip_sharp else None)
    selection = None
    if inputs.mask is not None or inputs.region is not None:
        if planned.kinds - {"photo"}:
            name = "--region" if inputs.mask is None else "--mask"
            raise UsageError(name, "is for photos, but there are videos", "leave the videos out")
        selection = Selection.read(inputs.mask, inputs.region)
    run_options = RunOptions(
        strip=targets.strip,
        format=targets.format,
        clips=wishes,
        reading=reading,
        selection=selection,
        skip_sharp=inputs.skip_sharp,
        **vars(existing),
    )
    with report:
        if not planned.jobs:
            return EXIT_FAILED if report.errors else 0
        if batch.engine == "ray":
            from deblurcli.batch import ray
            from deblurcli.weights import hub

            path = hub.find(weights, offline=compute.offline, show_progress=console.show_download)
            choice = ray.NetworkChoice(str(path.absolute()), **{**vars(compute), "offline": True})
            running = ray.run(planned.jobs, run_options, choice, workers=batch.workers)
        else:
            report.deblurrer = compute.load(weights)
            running = run(planned.jobs, report.deblurrer, run_options, report.show_frame)
        # Ray prints on standard output what befalls its workers; that is for results.
        aside = redirect_stdout(sys.stderr) if batch.engine == "ray" else nullcontext()
        with closing(running), aside:
            for outcome in running:
                report.add(outcome)
    return EXIT_FAILED if report.errors else 0


def preview(
    paths: list[str],
    given: dict[str, Any],
    compute: options.ComputeOptions,
    weights: str,
    *,
    json: bool,
) -> int:
    """Does ``--preview``; `given` are the options by name."""
    idle = "side_by_side frames codec crf preset fps dry_run shard mask region skip_sharp"
    for name in idle.split():
        if given[name] not in (None, False):
            option_name = f"--{name.replace('_', '-')}"
            raise UsageError(option_name, "does nothing beside --preview", "leave it out")
    from deblurcli.evaluation.comparison import write_preview
    from deblurcli.io.media import kind_of

    source = Path(paths[0])
    if len(paths) > 1 or source.is_dir() or kind_of(source) != "video":
        raise UsageError("--preview", "is for one video", "name one, without folders")
    page = Path(given["output"] or source.with_name(f"{source.stem}-preview.html"))
    check_page(page)
    with console.progress(given["preview"], "frame") as bar:
        written = write_preview(
            page,
            source,
            compute.load(weights).restore,
            given["preview"],
            start=given["start"],
            end=given["end"],
            overwrite=given["overwrite"],
            on_progress=partial(show_progress, bar),
        )
    report_page(written, json=json)
    return 0
