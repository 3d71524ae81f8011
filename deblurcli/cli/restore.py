"""``deblur photo.jpg -o sharp.jpg``: the default command."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.errors import DeblurError, UsageError

if TYPE_CHECKING:
    from deblurcli.deblurrer import Deblurrer
    from deblurcli.jobs import Job, Plan
    from deblurcli.pipeline import Outcome

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
    """Removes motion blur from photos and videos: PATH... are restored, or a COMMAND is run."""
    del context, version
    console.start(quiet=quiet, verbose=verbose)
    if not paths:
        raise UsageError("PATH", "missing", "name a photo or a folder, see 'deblur --help'")
    if overwrite and skip_existing:
        raise UsageError("--overwrite", "contradicts --skip-existing", "give one of them")
    if json and output == "-" and not dry_run:
        raise UsageError("--json", "standard output carries the photo already", "give another -o")

    from deblurcli import jobs

    plan = jobs.plan(
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
    clips = jobs.ClipOptions(
        fps=fps,
        codec=codec,
        crf=crf,
        preset=preset,
        start=None if start is None else options.seconds(start),
        end=None if end is None else options.seconds(end),
        to_frames=frames,
    )
    jobs.refuse_idle_options(plan, clips)
    report = _Report(plan, json=json, quiet=quiet)
    if dry_run:
        return report.list_jobs()

    from deblurcli import pipeline

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

    settings = pipeline.Settings(
        load,
        overwrite=overwrite,
        strip=strip,
        format=format,
        clips=clips,
        on_frame=report.show_frame,
    )
    return report.follow(pipeline.run(plan.jobs, settings))


def _suffix(format_name: str | None) -> str | None:
    if format_name is None:
        return None
    from deblurcli import media

    suffix = f".{format_name.lower().removeprefix('.')}"
    if suffix not in media.SUFFIXES:
        known = ", ".join(sorted(s[1:] for s in media.SUFFIXES))
        raise UsageError("--format", f"{format_name!r} is not known", f"give one of: {known}")
    return suffix


class _Report:
    """Tells the user what happens and, at the end, what failed and why."""

    def __init__(self, plan: Plan, *, json: bool, quiet: bool) -> None:
        from deblurcli.pipeline import Outcome

        self.plan, self.json, self.quiet = plan, json, quiet
        self.deblurrer: Deblurrer | None = None
        self.outcomes = [Outcome(job, "skipped") for job in plan.done]
        self.outcomes += [Outcome(job, "failed", error) for job, error in plan.failed]
        self.start = time.perf_counter()
        self._frames = console.FrameBar(quiet=quiet)

    def show_frame(self, job: Job, done: int, total: int | None) -> None:
        """A frame of a clip is done."""
        self._frames.show(job, Path(job.source_name).name, done, total)

    def list_jobs(self) -> int:
        """``--dry-run``."""
        if self.json:
            planned = [_job_json(job, "planned") for job in self.plan.jobs]
            console.print_json({"jobs": planned + [_outcome_json(o) for o in self.outcomes]})
        else:
            for job in self.plan.jobs:
                print(console.one_line(f"{job.source_name} -> {job.target_name}"))
        return self._say_failures()

    def follow(self, running: Generator[Outcome, None, None]) -> int:
        """Shows progress until all is done; gives the exit code."""
        stopped: BaseException | None = None
        try:
            unit = "photo" if all(j.kind == "photo" for j in self.plan.jobs) else "file"
            hidden = self.quiet or (len(self.plan.jobs) == 1 and unit == "file")
            with console.progress(len(self.plan.jobs), unit, quiet=hidden) as bar:
                for outcome in running:
                    self._frames.close()
                    self.outcomes.append(outcome)
                    bar.update()
                    self._say_notes(outcome)
        except BaseException as error:
            stopped = error
            raise
        finally:
            running.close()
            self._frames.close()
            code = self._say_failures()
            self._say_summary()
            if self.json:
                console.print_json(self._document(stopped))
        return code

    def _say_notes(self, outcome: Outcome) -> None:
        if not self.quiet:
            for note in outcome.notes:
                console.say(f"deblur: {outcome.job.source_name}: {note}")

    def _say_failures(self) -> int:
        failures = [outcome.error for outcome in self.outcomes if outcome.error is not None]
        for error in failures:
            console.say_error(error)
        return console.EXIT_FAILED if failures else 0

    def _say_summary(self) -> None:
        if self.quiet:
            return
        seconds = time.perf_counter() - self.start
        done = [o for o in self.outcomes if o.status == "done"]
        if len(self.outcomes) == 1:
            for outcome in done:
                if outcome.job.target is not None:
                    console.say(f"deblur: wrote {outcome.job.target_name} in {seconds:.1f} s")
        elif self.outcomes:
            counts = [f"{self._count(s)} {s}" for s in ("done", "skipped", "failed")]
            console.say(f"deblur: {', '.join(counts)} in {seconds:.1f} s")

    def _count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)

    def _document(self, stopped: BaseException | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "version": __version__,
            "seconds": round(time.perf_counter() - self.start, 3),
            "counts": {status: self._count(status) for status in ("done", "skipped", "failed")},
            "jobs": [_outcome_json(outcome) for outcome in self.outcomes],
        }
        if self.deblurrer is not None:
            document["weights"] = str(self.deblurrer.weights_path)
            document["device"] = str(self.deblurrer.device)
        if stopped is not None:
            document["stopped"] = str(stopped) or type(stopped).__name__
        return document


def _job_json(job: Job, status: str) -> dict[str, Any]:
    return {
        "source": None if job.source is None else str(job.source),
        "target": None if job.target is None else str(job.target),
        "kind": job.kind,
        "status": status,
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    document = _job_json(outcome.job, outcome.status)
    if outcome.status == "done":
        document["seconds"] = round(outcome.seconds, 3)
        document["notes"] = list(outcome.notes)
    if isinstance(outcome.error, DeblurError):
        document["error"] = {"reason": outcome.error.reason, "remedy": outcome.error.remedy}
    return document
