"""``deblur data frames``: pairs of blurred and sharp pictures from fast video."""

from __future__ import annotations

import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deblurcli.cli import console, options
from deblurcli.cli.data_options import Output, Seed, say_end, say_plan
from deblurcli.errors import DeblurError

if TYPE_CHECKING:
    from deblurcli.data.make_pairs.clips import Clip
    from deblurcli.data.make_pairs.frame_averaging import Averaging

_log = logging.getLogger("deblurcli")

KINDS = {"linear": ("blur",), "gamma": ("blur_gamma",), "both": ("blur", "blur_gamma")}
SPLITS = ("train", "test", "val")


def _check_range(value: str) -> str:
    if not re.fullmatch(r"\d+(\.\.\d+)?", value):
        raise typer.BadParameter(f"{value!r} is not a number or a range such as 7..13")
    return value


def make_from_frames(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            show_default=False,
            help="Videos of 120 frames per second or more, folders of numbered frames, or "
            "folders that hold such.",
        ),
    ],
    output: Output,
    frames: Annotated[
        str,
        typer.Option(
            "--frames",
            metavar="N|N..M",
            callback=_check_range,
            help="How many successive frames are averaged: odd numbers are drawn from this range.",
        ),
    ] = "7..13",
    blur: Annotated[
        str,
        typer.Option(
            "--blur",
            metavar="|".join(KINDS),
            callback=options.one_of(KINDS),
            help="Average the frames as they are (GOPRO's blur), through the gamma curve as light "
            "adds up (blur_gamma), or both.",
        ),
    ] = "both",
    gamma: Annotated[
        float, typer.Option("--gamma", min=1.0, max=4.0, help="The camera's gamma curve.")
    ] = 2.2,
    every: Annotated[
        int | None,
        typer.Option(
            "--every",
            metavar="FRAMES",
            min=1,
            show_default=False,
            help="Begin a pair every so many frames. [default: after the last frame of the "
            "pair before]",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="|".join(SPLITS),
            callback=options.one_of(SPLITS),
            help="The part of the data set that the pairs go to.",
        ),
    ] = "train",
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            min=0.1,
            show_default=False,
            help="Frames per second at which it was recorded, where the file doesn't say so: "
            "slow motion, folders of frames.",
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: options.Overwrite = False,
    skip_existing: options.SkipExisting = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Average successive frames of fast video, the middle one as sharp, as the paper did.

    Writes GOPRO's layout: DIR/train/CLIP/blur, blur_gamma and sharp. The same seed gives the
    same files.
    """
    console.start(quiet=quiet, verbose=verbose)
    options.refuse_contradiction(overwrite=overwrite, skip_existing=skip_existing)
    from deblurcli.data.make_pairs.clips import find_clips
    from deblurcli.data.make_pairs.frame_averaging import SHARP, Averaging
    from deblurcli.data.make_pairs.pair_folder import PairFolder

    least, _, most = frames.partition("..")
    averaging = Averaging(int(least), int(most or least), KINDS[blur], gamma, every, seed)
    clips, failures = find_clips(sources, leave_out=[output])
    _warn_of_few_fps(clips, fps)
    folders = {
        clip.name: PairFolder(
            output / split / clip.name,
            (*averaging.kinds, SHARP),
            {"command": "data frames", "source": clip.source.name, **asdict(averaging)},
            overwrite=overwrite,
            skip_existing=skip_existing,
        )
        for clip in clips
    }
    for clip in clips:
        folders[clip.name].check(clip.files or (clip.source,))
    if dry_run:
        roots = {name: folder.root for name, folder in folders.items()}
        return _list_clips(clips, averaging, roots, failures, json=json)
    report: list[dict[str, Any]] = []
    counts = [clip.frame_count for clip in clips]
    total = None if None in counts else sum(count or 0 for count in counts)
    with console.progress(total, "frame", quiet=quiet) as bar:
        for clip in clips:
            written, error = _average_clip(clip, averaging, folders[clip.name], bar)
            report.append(
                {
                    "name": clip.name,
                    "source": str(clip.source),
                    "fps": None if clip.fps is None else float(clip.fps),
                    "folder": str(folders[clip.name].root),
                    "pairs": written,
                }
            )
            if error is not None:
                failures.append(error)
    made = sum(len(entry["pairs"]) for entry in report)
    return say_end(made, output, failures, {"clips": report}, json=json, quiet=quiet)


def _average_clip(
    clip: Clip, averaging: Averaging, folder: Any, bar: console.Progress
) -> tuple[list[dict[str, Any]], DeblurError | None]:
    from deblurcli.data.make_pairs.frame_averaging import write_pairs

    written: list[dict[str, Any]] = []
    error: DeblurError | None = None
    for result in write_pairs(clip, averaging, folder, bar.update):
        if isinstance(result, DeblurError):
            error = result
            continue
        written.append(
            {"name": result.name, "first": result.first_frame, "frames": result.frame_count}
        )
        bar.set_postfix_str(f"{clip.name} {result.name}")
    if error is None and not folder.holds_any():
        error = DeblurError(
            clip.source,
            f"no {averaging.least_frames} frames follow each other in it without a gap",
            "give a longer clip, or fewer --frames",
        )
    return written, error


def _warn_of_few_fps(clips: list[Clip], fps: float | None) -> None:
    from deblurcli.data.make_pairs.frame_averaging import LEAST_FPS

    for clip in clips:
        rate = fps or (None if clip.fps is None else float(clip.fps))
        if rate is not None and rate < LEAST_FPS:
            _log.warning(
                "%s: %g frames per second, less than %d: moving things will show as copies "
                "instead of blur; 'deblur data synth' makes smooth blur from sharp photos, "
                "--fps tells the true rate of slow motion",
                clip.source,
                rate,
                LEAST_FPS,
            )


def _list_clips(
    clips: list[Clip],
    averaging: Averaging,
    folders: dict[str, Path],
    failures: list[DeblurError],
    *,
    json: bool,
) -> int:
    mean = averaging.every or (averaging.least_frames + averaging.most_frames) / 2
    planned = []
    for clip in clips:
        pairs = "" if clip.frame_count is None else f", about {clip.frame_count / mean:.0f} pairs"
        planned.append((str(clip.source), f"{folders[clip.name]}{'' if json else pairs}"))
    say_plan(planned, json=json)
    for error in failures:
        console.say_error(error)
    return console.EXIT_FAILED if failures else 0
