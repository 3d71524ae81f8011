"""Restoring a video frame by frame: decoding, computing and encoding at the same time."""

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
from deblurcli.io.videos.overlap import read_ahead, write_behind
from deblurcli.io.videos.pixels import Colour, frame_like, pixels_of
from deblurcli.io.videos.reading import Step, VideoReader
from deblurcli.io.videos.segments import SEGMENT_FRAMES, SegmentStore
from deblurcli.io.videos.steadying import Restore, Steadier
from deblurcli.io.videos.streams import choose_copied_streams
from deblurcli.io.videos.writing import Picture, open_writer

# The others have no place for a rotation: there the frames themselves are turned.
_ROTATION_HOLDERS = ("mp4", "mov", "matroska")


@dataclass(frozen=True)
class VideoResult:
    """What became of a video."""

    frame_count: int  # of frames written
    notes: tuple[str, ...] = ()  # what was left out or is written differently
    damage: tuple[str, ...] = ()  # what of the input could not be decoded, with its time


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
    container = container_of(target)
    upright = options.side_by_side or container not in _ROTATION_HOLDERS
    part, keep_origin = (options.start, options.end), container == "mpegts"
    reader = VideoReader(source, *part, keep_origin=keep_origin, upright=upright)
    with closing(reader):
        stream = reader.stream
        copied = choose_copied_streams(reader.container, stream, container, strip=options.strip)
        encoding = choose_encoding(container, stream.codec_context.name, stream.format, options)
        steps = reader.steps(copied.streams)
        first = next(steps)
        assert first.frame is not None
        encoding = encoding.with_traits_of(reader, copied.any_tag)
        size = (first.frame.width * (2 if options.side_by_side else 1), first.frame.height)
        colour, times = Colour.of(stream, encoding.encoder), (reader.tick, reader.rate)
        picture = Picture(*size, colour, *times, reader.display_matrix, reader.aspect)
        with open_writer([source], target, encoding, picture, options, reader.part) as writer:
            writer.copy_from(reader, copied, strip=options.strip)
            steps, total = itertools.chain([first], steps), reader.frame_count
            write, segments = writer.write, writer.segments
            count = restore_steps(steps, write, restore, segments, options, size, total)
        notes = (*copied.notes, *encoding.notes, *reader.notes)
        return VideoResult(count, notes, reader.damage())


def restore_steps(
    steps: Iterable[Step],
    write: Callable[[Step], None],
    restore: Restore,
    segments: SegmentStore,
    options: ClipOptions,
    size: tuple[int, int],
    total: int | None,
) -> int:
    """Restores the frames of `steps`, which one thread reads, and another hands all steps to
    `write`; frames of which `segments` has the result stay as they are. Gives their number."""
    done, steadier = 0, Steadier(restore)
    # How many frames of that size may wait in one queue.
    depth = max(1, min(6, 32_000_000 // (size[0] * size[1])))
    with closing(read_ahead(steps, depth)) as ahead, write_behind(write, depth) as put:
        for step in ahead:
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
