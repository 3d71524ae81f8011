"""From decoded frames to RGB for the network, and back to what the encoder takes.

Both ways go through swscale with full chroma interpolation and accurate rounding: without
these flags a frame that nobody changed comes back up to 2 levels darker. The matrix is the
video's own (BT.601, BT.709, BT.2020); where it is not said, by the rule of most players: BT.709
for HD, BT.601 below. The same one is used both ways, so that a wrong guess does no harm.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from deblurcli.io.videos.side_data import DisplayMatrix

Pixels = NDArray[Any]
"""(H, W, 3) uint8 or uint16 sRGB."""

# swscale's numbers; PyAV has names for all of them only since 18.
_BICUBIC, _FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE = 1 << 2, 1 << 13, 1 << 14, 1 << 18
_FLAGS = _BICUBIC | _FULL_CHROMA_OUT | _FULL_CHROMA_IN | _ACCURATE
_LIMITED, _FULL = 1, 2
_BT709, _BT601, _RGB = 1, 5, 0
# FFmpeg's matrices -> swscale's, where both know them.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}

RGB16 = "rgb48le" if sys.byteorder == "little" else "rgb48be"
"""FFmpeg's name of (H, W, 3) uint16 RGB on this machine."""


@dataclass(frozen=True)
class Colour:
    """FFmpeg's numbers of the colour tags of a video, as a stream carries them."""

    matrix: int
    range: int
    transfer: int
    primaries: int

    @classmethod
    def of(cls, context: VideoCodecContext) -> Colour:
        return cls(
            context.colorspace, context.color_range, context.color_trc, context.color_primaries
        )


class PixelReader:
    """Turns decoded frames into RGB frames of 8 or 16 bits. For one thread."""

    def __init__(self, bits: int) -> None:
        self._format = RGB16 if bits > 8 else "rgb24"
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: VideoFrame) -> VideoFrame:
        """The frame in RGB, the caller's own; time stamps and side data come along."""
        if frame.format.name == self._format:
            # Nothing to convert; but the decoder may still need its frame as it is.
            return _copy_times(VideoFrame.from_ndarray(frame.to_ndarray(), self._format), frame)
        return self._reformatter.reformat(
            frame,
            format=self._format,
            interpolation=_FLAGS,
            src_colorspace=matrix_of(frame),
            src_color_range=_range_of(frame),
            dst_color_range=_FULL,
        )


def exceeds_rgb(frame: VideoFrame) -> bool:
    """Whether a frame of limited range is somewhere brighter than white, as cameras record
    highlights: RGB cuts that off."""
    if _range_of(frame) == _FULL or not frame.format.is_planar:
        return False
    return bool(_samples(frame, 0).max() > 235 << (frame.format.components[0].bits - 8))


class PixelWriter:
    """Turns RGB frames into frames for an encoder. For one thread."""

    def __init__(self, width: int, height: int, pixel_format: str, colour: Colour) -> None:
        """
        Args:
            width, height: of the encoder's frames.
            pixel_format: the encoder's.
            colour: tags of the output; the unspecified ones are guessed as on reading.
        """
        self._width, self._height, self._format = width, height, pixel_format
        self._colour = colour
        self._reformatter = VideoReformatter()

    def from_rgb(self, frame: VideoFrame, original: VideoFrame | None = None) -> VideoFrame:
        """The frame as the encoder takes it.

        Args:
            frame: restored, in RGB.
            original: the decoded frame, where `exceeds_rgb`: what RGB could not hold of it is
                added again. Left out of account where the output has another size or range.
        """
        converted = self._convert(frame)
        is_alike = (
            original is not None
            and (original.width, original.height) == (self._width, self._height)
            and len(converted.planes) == 3
            and self._colour.range != _FULL
        )
        if original is not None and is_alike:
            held = self._convert(PixelReader(original.format.components[0].bits).to_rgb(original))
            whole = self._convert(original)
            top = (1 << converted.format.components[0].bits) - 1
            for plane in range(3):
                samples = _samples(converted, plane)
                lost = _samples(whole, plane).astype(np.int32) - _samples(held, plane)
                samples[:] = np.clip(samples + lost, 0, top)
        converted.colorspace = self._colour.matrix
        converted.color_range = self._colour.range
        # Else the encoder would repeat the input's choice of key frames.
        converted.pict_type = 0
        return converted

    def _convert(self, frame: VideoFrame) -> VideoFrame:
        matrix = _MATRICES.get(self._colour.matrix) or _guess_matrix(self._width, self._height)
        return self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format=self._format,
            interpolation=_FLAGS,
            src_colorspace=None if frame.format.is_rgb else matrix,
            dst_colorspace=matrix,
            src_color_range=_range_of(frame),
            dst_color_range=_FULL if self._colour.range == _FULL else _LIMITED,
        )


def _samples(frame: VideoFrame, number: int) -> Pixels:
    """One plane of a planar YUV frame, not copied: (H, W) uint8 or uint16."""
    plane = frame.planes[number]
    kind = np.uint8 if frame.format.components[number].bits == 8 else np.uint16
    rows = np.frombuffer(cast(Any, plane), kind).reshape(plane.height, -1)
    return rows[:, : plane.width]


def pixels_of(frame: VideoFrame) -> Pixels:
    """The pixels of an RGB frame, copied: (H, W, 3), uint8 or uint16."""
    return np.array(frame.to_ndarray(), order="C")  # a copy: `with_pixels` overwrites the frame


def with_pixels(frame: VideoFrame, pixels: Pixels) -> VideoFrame:
    """`frame` with other pixels of its own kind: in place where the size is the same."""
    height, width = pixels.shape[:2]
    if (frame.height, frame.width) != (height, width):
        frame = _copy_times(VideoFrame(width, height, frame.format.name), frame)
    plane = frame.planes[0]
    row_bytes = width * 3 * pixels.dtype.itemsize
    rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)[
        :height, :row_bytes
    ]
    rows[:] = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, row_bytes)
    return frame


def _copy_times(frame: VideoFrame, source: VideoFrame) -> VideoFrame:
    frame.pts, frame.duration = source.pts, source.duration
    if source.time_base:
        frame.time_base = source.time_base
    return frame


def matrix_of(frame: VideoFrame) -> int:
    """swscale's number of the YUV matrix of a frame, guessed where it is not said."""
    return _MATRICES.get(frame.colorspace) or _guess_matrix(frame.width, frame.height)


def _guess_matrix(width: int, height: int) -> int:
    return _BT709 if width >= 1280 or height > 576 else _BT601


def _range_of(frame: VideoFrame) -> int:
    full = frame.color_range == _FULL or frame.format.is_rgb or "yuvj" in frame.format.name
    return _FULL if full else _LIMITED


def turn_upright(pixels: Pixels, display_matrix: DisplayMatrix) -> Pixels:
    """Turns and mirrors `pixels` (H, W, 3) as a player would: quarter turns only."""
    a, b, _, c, d = display_matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        pixels = pixels.swapaxes(0, 1)
        across, down = c, b
    if across < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
