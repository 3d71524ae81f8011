"""Restoring a video frame by frame: decoding, computing and encoding at the same time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deblurcli.io.videos.encoding import choose_encoding
from deblurcli.io.videos.info import container_of, rate_of, tick_of
from deblurcli.io.videos.overlap import depth_for, read_ahead, write_behind
from deblurcli.io.videos.pixels import (
    display_matrix_of,
    frame_like,
    pixels_of,
    samples_of,
    side_data_of,
    turn_upright,
)
from deblurcli.io.videos.reading import VideoReader
from deblurcli.io.videos.segments import SEGMENT_FRAMES, open_segments
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


def restore_video(  # noqa: PLR0915 - one page, from the input to the output
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
    keep_origin = container_format == "mpegts"
    with closing(VideoReader(source, start, end, keep_origin=keep_origin)) as reader:
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
        with closing(read_ahead(reader.steps(copied.streams), depth)) as steps:
            first = next(steps)
            assert first.frame is not None
            encoding = encoding.with_traits_of(stream, side_data_of(first.frame))
            matrix = display_matrix_of(first.frame)
            keeps_turn = container_format in _ROTATION_HOLDERS and not side_by_side
            turn = None if keeps_turn else matrix
            picture = Picture.of(stream, first.frame, encoding.encoder, turn)
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
            output = [container_format, repr(encoding), repr(picture), repr(reader.part)]
            with (
                video_output(target, overwrite=overwrite) as part,
                nullcontext()
                if restored_by is None
                else open_segments(source, target, part, restored_by, output) as segments,
                VideoWriter(
                    part,
                    container_format,
                    encoding,
                    picture,
                    time_base=tick_of(stream),
                    rate=rate_of(stream),
                    any_tag=bool(unusual) and not copied.has_cover,
                    segments=segments,
                ) as writer,
            ):
                writer.copy_from(reader, copied, strip=strip)
                size, done = (first.frame.width, first.frame.height), 0
                steadier = Steadier(restore)
                with write_behind(writer.write, depth) as write:
                    for step in itertools.chain([first], steps):
                        frame = step.frame
                        if frame is not None and not writer.has(done):
                            if size != (frame.width, frame.height):
                                size = (frame.width, frame.height)
                                notes.append(
                                    f"its size changes to {size[0]}x{size[1]} at frame {done + 1}: "
                                    f"scaled to {picture.width}x{picture.height}"
                                )
                            segment, place = divmod(done, SEGMENT_FRAMES)
                            if segments is not None and place == 0 and segment:
                                steadier.load(segments.load_state(segment - 1))
                            restored = steadier(pixels_of(frame))
                            if segments is not None and place == SEGMENT_FRAMES - 1:
                                segments.save_state(segment, steadier.save())
                            if turn is None and not side_by_side:
                                rows = restored.reshape(len(restored), -1)
                                np.copyto(samples_of(frame, 0), rows, casting="no")
                            else:
                                shown = turn_upright(restored, turn)
                                if side_by_side:
                                    shown = np.hstack((turn_upright(pixels_of(frame), turn), shown))
                                step.frame = frame_like(frame, shown)
                                step.original = None
                        write(step)
                        done += frame is not None
                        if progress is not None and frame is not None:
                            progress(done, reader.frame_count)
        return VideoResult(done, (*notes, *reader.notes), reader.damage())
