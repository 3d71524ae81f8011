"""``deblur photo.jpg -o sharp.jpg``: the default command."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.errors import UsageError

if TYPE_CHECKING:
    from deblurcli.deblurrer import Deblurrer

_log = logging.getLogger("deblurcli")

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


def _complete_path(context: typer.Context, incomplete: str) -> list[str]:
    """Command names for the first word, and paths for every word."""
    names: list[str] = []
    if not context.params.get("paths"):
        names = list(getattr(context.command, "commands", {}))
    parent, stem = incomplete.rpartition("/")[::2]
    with suppress(OSError):
        for path in sorted(Path(parent or ("/" if incomplete.startswith("/") else ".")).iterdir()):
            if path.name.startswith(stem) and (stem or not path.name.startswith(".")):
                shown = incomplete.removesuffix(stem) + path.name
                names.append(shown + "/" if path.is_dir() else shown)
    return [name for name in names if name.startswith(incomplete)]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"deblur {__version__}")
        raise typer.Exit


def restore(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...",
            show_default=False,
            autocompletion=_complete_path,
            help="Photos, videos and folders; - is standard input.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            show_default=False,
            help="File or folder to write; - is standard output.",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into sub-folders too.")
    ] = False,
    format: Annotated[  # noqa: A002  (the option's name)
        str | None,
        typer.Option(
            "--format",
            metavar="jpg|png|...",
            show_default=False,
            help="Format of the outputs; else by the name of -o, or the input's own.",
        ),
    ] = None,
    video: options.Video = False,
    fps: options.Fps = None,
    frames: options.Frames = False,
    start: options.Start = None,
    end: options.End = None,
    codec: options.Codec = None,
    crf: options.Crf = None,
    preset: options.Preset = None,
    weights: options.Weights = "default",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = "auto",
    strength: options.Strength = 1.0,
    overwrite: options.Overwrite = False,
    skip_existing: options.SkipExisting = False,
    dry_run: options.DryRun = False,
    shard: options.Shard = "1/1",
    engine: options.Engine = "local",
    workers: options.Workers = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave out private metadata: place, camera, dates.")
    ] = False,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> int:
    """Remove motion blur from photos and videos: PATH... are restored, or a COMMAND is run."""
    del context, version
    console.start(quiet=quiet, verbose=verbose)
    if not paths:
        raise UsageError("PATH", "missing", "name a photo or a folder, see 'deblur --help'")
    options.refuse_contradiction(overwrite=overwrite, skip_existing=skip_existing)
    if workers is not None and engine == "local":
        raise UsageError("--workers", "is for --engine ray", "leave it out")
    if json and output == "-" and not dry_run:
        raise UsageError("--json", "standard output carries the photo already", "give another -o")

    from deblurcli.batch import job
    from deblurcli.batch.plan import plan as make_plan

    plan = make_plan(
        paths,
        output,
        recursive=recursive,
        videos=video,
        to_frames=frames,
        suffix=_suffix(format),
        overwrite=overwrite,
        skip_existing=skip_existing,
        shard=options.shard(shard),
    )
    clips = job.ClipOptions(
        fps=fps,
        codec=codec,
        crf=crf,
        preset=preset,
        start=None if start is None else options.seconds(start),
        end=None if end is None else options.seconds(end),
        to_frames=frames,
    )
    job.refuse_idle_options(plan, clips)

    from deblurcli.batch import run
    from deblurcli.cli.run_report import RunReport

    report = RunReport(plan, json=json, quiet=quiet)
    if dry_run:
        return report.list_jobs()

    def load() -> Deblurrer:
        from deblurcli.cli.fetching import find_weights

        path = find_weights(weights, offline=offline, quiet=quiet)
        from deblurcli.deblurrer import Deblurrer

        deblurrer = Deblurrer.load(
            path,
            device,
            precision,
            tile=options.tile_px(tile),
            strength=strength,
            offline=offline,
        )
        precision_used = deblurrer.precision
        _log.info("weights %s, on %s", path, deblurrer.device)
        _log.info("precision %s: %s", precision_used, precision_used.reason)
        report.deblurrer = deblurrer
        return deblurrer

    settings = run.Settings(
        load,
        overwrite=overwrite,
        strip=strip,
        format=format,
        clips=clips,
        on_frame=report.show_frame,
    )
    if engine == "local":
        return report.follow(run.run(plan.jobs, settings))

    from deblurcli.batch import ray
    from deblurcli.cli.fetching import find_weights

    network = ray.NetworkChoice(
        str(find_weights(weights, offline=offline, quiet=quiet).absolute()),
        device,
        precision,
        options.tile_px(tile),
        strength,
    )
    return report.follow(ray.run(plan.jobs, settings, network, workers=workers))


def _suffix(format_name: str | None) -> str | None:
    if format_name is None:
        return None
    from deblurcli.io.photos import PHOTO_SUFFIXES

    suffix = f".{format_name.lower().removeprefix('.')}"
    if suffix not in PHOTO_SUFFIXES:
        known = ", ".join(sorted(s[1:] for s in PHOTO_SUFFIXES))
        raise UsageError("--format", f"{format_name!r} is not known", f"give one of: {known}")
    return suffix
