"""Restoring a video frame by frame: decoding, computing and encoding at the same time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deblurcli.io.options import ClipOptions
from deblurcli.io.videos.encoding import choose_encoding
from deblurcli.io.videos.info import container_of
from deblurcli.io.videos.overlap import depth_for, read_ahead, write_behind
from deblurcli.io.videos.pixels import frame_like, pixels_of
from deblurcli.io.videos.reading import Step, VideoReader
from deblurcli.io.videos.segments import SEGMENT_FRAMES, SegmentStore
from deblurcli.io.videos.steadying import Restore, Steadier
from deblurcli.io.videos.streams import choose_copied_streams
from deblurcli.io.videos.writing import Picture, open_writer, unusual_tags

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
    options: ClipOptions | None = None,
    **changes: Any,
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
        options: `ClipOptions`, which can also be given one by one, as ``crf=18``: `changes`.

    Raises:
        UsageError: `target` exists, or the options don't fit each other.
        DeblurError: `source` holds no video that can be decoded, or `target` can't be written.
    """
    source, target = Path(source), Path(target)
    options = replace(options or ClipOptions(), **changes)
    container_format = container_of(target)
    keep_origin = container_format == "mpegts"
    upright = options.side_by_side or container_format not in _ROTATION_HOLDERS
    part = (options.start, options.end)
    reader = VideoReader(source, *part, keep_origin=keep_origin, upright=upright)
    with closing(reader):
        stream, tags = reader.stream, reader.container.metadata
        copied = choose_copied_streams(
            reader.container, stream, container_format, strip=options.strip
        )
        encoding = choose_encoding(
            container_format, stream.codec_context.name, stream.format, options
        )
        depth = depth_for(stream.width, stream.height)
        with closing(read_ahead(reader.steps(copied.streams), depth)) as others:
            first = next(others)
            assert first.frame is not None
            encoding = encoding.with_traits_of(stream, reader.side_data)
            picture = Picture.of(reader, first.frame, encoding.encoder)
            if options.side_by_side:
                picture = replace(picture, width=2 * picture.width)
            notes = [*copied.notes, *encoding.notes]
            unusual = [] if options.strip else unusual_tags(container_format, tags)
            if unusual and copied.has_cover:
                left_out = ", ".join(unusual)
                notes.append(f"tags left out beside a cover in {container_format}: {left_out}")
            holds_aspect = container_format in ("mp4", "mov") or encoding.encoder in _ASPECT_HOLDERS
            if picture.aspect not in (None, 1) and not holds_aspect:
                notes.append(
                    f"its pixels are {picture.aspect} as wide as high, which {encoding.encoder} "
                    f"in {container_format} can't say here: .mp4 would"
                )
            any_tag = bool(unusual) and not copied.has_cover
            with open_writer(
                [source], target, encoding, picture, options, part=reader.part, any_tag=any_tag
            ) as writer:
                writer.copy_from(reader, copied, strip=options.strip)
                steps, total = itertools.chain([first], others), reader.frame_count
                count = restore_steps(
                    steps, writer.write, restore, writer.segments, options, depth, total
                )
        return VideoResult(count, (*notes, *reader.notes), reader.damage())


def restore_steps(
    steps: Iterable[Step],
    write: Callable[[Step], None],
    restore: Restore,
    segments: SegmentStore,
    options: ClipOptions,
    depth: int,
    total: int | None,
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
                    if options.side_by_side:
                        shown = np.hstack((blurred, shown))
                    step.frame = frame_like(step.frame, shown)
                done += 1
                if options.progress is not None:
                    options.progress(done, total)
            put(step)
    return done
