"""Restoring what moves: a video, an animated picture, or a folder of numbered frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from deblurcli.batch.job import ClipOptions, Job
from deblurcli.errors import DeblurError, UsageError, cannot_write
from deblurcli.io import media, photos
from deblurcli.io.videos import (
    VideoResult,
    restore_animation,
    restore_frames,
    restore_to_frames,
    restore_video,
)
from deblurcli.io.videos.restoring import Progress, Restore

DEFAULT_FPS = 30.0


def restore_clip(
    job: Job,
    restore: Restore,
    options: ClipOptions,
    *,
    strip: bool = False,
    overwrite: bool,
    progress: Progress | None = None,
) -> VideoResult:
    """Does one job whose kind is ``video``, ``animation`` or ``frames``.

    Raises:
        UsageError: the target exists, or the options don't fit.
        DeblurError: the source can't be decoded or the target not written.
    """
    if job.source is None or job.target is None:
        raise UsageError(job.source_name, "a video does not fit through a pipe", "give files")
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(job.target, error) from error
    if job.kind == "animation":
        return restore_animation(
            job.source, job.target, restore, strip=strip, overwrite=overwrite, progress=progress
        )
    encoder: dict[str, Any] = {
        "codec": options.codec,
        "crf": options.crf,
        "preset": options.preset,
    }
    if job.kind == "frames":
        return restore_frames(
            media.find_clip(job.source),
            job.target,
            restore,
            _read_frame,
            fps=DEFAULT_FPS if options.fps is None else options.fps,
            overwrite=overwrite,
            progress=progress,
            **encoder,
        )
    part: dict[str, Any] = {"start": options.start, "end": options.end}
    if options.to_frames:
        return restore_to_frames(
            job.source, job.target, restore, overwrite=overwrite, progress=progress, **part
        )
    return restore_video(
        job.source,
        job.target,
        restore,
        strip=strip,
        overwrite=overwrite,
        progress=progress,
        **encoder,
        **part,
    )


def _read_frame(path: Path) -> NDArray[Any]:
    return photos.read(path).pixels


def damage_error(job: Job, result: VideoResult) -> DeblurError:
    """What to say of a clip that was restored as far as it could be decoded."""
    return DeblurError(
        job.source_name,
        "; ".join(result.damage),
        f"what could be decoded ({result.frame_count} frames) is in {job.target_name}",
    )
