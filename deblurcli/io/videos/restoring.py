"""Restoring a video frame by frame: decoding, computing and encoding at the same time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deblurcli.io.videos.encoding import choose_encoding
from deblurcli.io.videos.info import container_of
from deblurcli.io.videos.overlap import depth_for, read_ahead, write_behind
from deblurcli.io.videos.pixels import frame_like, pixels_of
from deblurcli.io.videos.reading import Step, VideoReader
from deblurcli.io.videos.segments import SEGMENT_FRAMES, SegmentStore, open_segments
from deblurcli.io.videos.steadying import Restore, Steadier
from deblurcli.io.videos.streams import choose_copied_streams
from deblurcli.io.videos.writing import Picture, VideoWriter, unusual_tags, video_output

Progress = Callable[[int, int | None], None]
"""Told after each frame how many are done, and how many there are if that is known."""

# The others have no place for a rotation: there the frames themselves are turned.
_ROTATION_HOLDERS = ("mp4", "mov", "matroska")
# These write the shape of pixels into their own data; MP4 and MOV have a place for it beside
# them, Matroska too, but PyAV can't fill that one.
_ASPECT_HOLDERS = ("libx264", "libx265", "mpeg4", "mjpeg", "mpeg2video")


@dataclass(frozen=True)
class VideoResult:
    """What became of a video.

    Attributes:
        frame_count: number of frames written.
        notes: what the user should know: what was left out or is written differently.
        damage: what of the input could not be decoded, with its time; empty if all could.
    """

    frame_count: int
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()


def restore_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    restore: Restore,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    start: float | None = None,
    end: float | None = None,
    side_by_side: bool = False,
    strip: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    restored_by: str | None = None,
) -> VideoResult:
    """Restores the frames of `source` and writes them, with all else it holds, to `target`.

    Frames keep their times, size, rotation, aspect and colour tags; audio and subtitles are
    copied. Where the video stands still, the change that is made to it is steadied (`Steadier`).
    `restore` is called in the calling thread, in the order of the frames, while other
    threads decode and encode; memory does not grow with the length of the video.

    Args:
        source: a video file.
        target: the file to write; its ending says which container.
        restore: restores one frame; must not change what it is given.
        codec, crf, preset: of the encoder; see `choose_encoding`.
        start, end: the part to restore, in seconds of playing time.
        side_by_side: write each frame twice as wide: as it was, and restored; upright.
        strip: leave out tags (but languages), telemetry and cover pictures.
        overwrite: `target` may be replaced.
        progress: is told about each frame.
        restored_by: names all that decides what `restore` gives, such as weights and strength.
            Where it is given, a run that ends early keeps what it has done in a folder
            ``TARGET.part``, and the same call goes on from there.

    Raises:
        UsageError: `target` exists, or the options don't fit each other.
        DeblurError: `source` holds no video that can be decoded, or `target` can't be written.
    """
    source, target = Path(source), Path(target)
    container_format = container_of(target)
    reader = VideoReader(
        source,
        start,
        end,
        keep_origin=container_format == "mpegts",
        upright=side_by_side or container_format not in _ROTATION_HOLDERS,
    )
    with closing(reader):
        stream, tags = reader.stream, reader.container.metadata
        copied = choose_copied_streams(reader.container, stream, container_format, strip=strip)
        encoding = choose_encoding(
            container_format,
            stream.codec_context.name,
            stream.format,
            codec=codec,
            crf=crf,
            preset=preset,
        )
        depth = depth_for(stream.width, stream.height)
        with closing(read_ahead(reader.steps(copied.streams), depth)) as others:
            first = next(others)
            assert first.frame is not None
            encoding = encoding.with_traits_of(stream, reader.side_data)
            picture = Picture.of(reader, first.frame, encoding.encoder)
            if side_by_side:
                picture = replace(picture, width=2 * picture.width)
            notes = [*copied.notes, *encoding.notes]
            unusual = [] if strip else unusual_tags(container_format, tags)
            if unusual and copied.has_cover:
                left_out = ", ".join(unusual)
                notes.append(f"tags left out beside a cover in {container_format}: {left_out}")
            holds_aspect = container_format in ("mp4", "mov") or encoding.encoder in _ASPECT_HOLDERS
            if picture.aspect not in (None, 1) and not holds_aspect:
                notes.append(
                    f"its pixels are {picture.aspect} as wide as high, which {encoding.encoder} "
                    f"in {container_format} can't say here: .mp4 would"
                )
            output = [repr(encoding), repr(picture), repr(reader.part)]
            any_tag = bool(unusual) and not copied.has_cover
            with (
                video_output(target, overwrite=overwrite) as part,
                open_segments([source], target, restored_by, output) as segments,
                closing(VideoWriter(part, encoding, picture, segments, any_tag=any_tag)) as writer,
            ):
                writer.copy_from(reader, copied, strip=strip)
                steps, total = itertools.chain([first], others), reader.frame_count
                count = restore_steps(
                    steps, writer.write, restore, segments, depth, progress, total, side_by_side
                )
                writer.finish()
        return VideoResult(count, (*notes, *reader.notes), reader.damage())


def restore_steps(
    steps: Iterable[Step],
    write: Callable[[Step], None],
    restore: Restore,
    segments: SegmentStore,
    depth: int,
    progress: Progress | None,
    total: int | None,
    side_by_side: bool = False,
) -> int:
    """Restores the frames of `steps` and hands all steps to `write`, in a thread of its own.

    Frames of which `segments` has the result stay as they are. Gives the number of frames.
    """
    done, steadier = 0, Steadier(restore)
    with write_behind(write, depth) as put:
        for step in steps:
            if step.frame is not None:
                segment, place = divmod(done, SEGMENT_FRAMES)
                if not segments.has(done):
                    if place == 0 and segment and segments.has(done - 1):
                        steadier.load(segments.load_state(segment - 1))
                    blurred = pixels_of(step.frame)
                    shown = steadier(blurred)
                    if place == SEGMENT_FRAMES - 1:
                        segments.save_state(segment, steadier.save())
                    if side_by_side:
                        shown = np.hstack((blurred, shown))
                    step.frame = frame_like(step.frame, shown)
                done += 1
                if progress is not None:
                    progress(done, total)
            put(step)
    return done
