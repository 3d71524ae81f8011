"""From decoded frames to RGB for the network, and back to what the encoder takes.

Both ways go through swscale with full chroma interpolation and accurate rounding: without these
flags a frame that nobody changed comes back up to 2 levels darker. The matrix is the video's own;
where it is not said, by the rule of most players BT.709 for HD, BT.601 below. The same one is used
both ways, so that a wrong guess does no harm.
"""

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from av import VideoFrame, VideoStream
from av.buffer import Buffer
from av.video.reformatter import VideoReformatter

from deblurcli.io.image import Image

DisplayMatrix = tuple[int, ...]
"""The nine numbers that say how a player shall turn a video."""

# swscale's numbers; PyAV has names for all of them only since 18.
_BICUBIC, _FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE = 1 << 2, 1 << 13, 1 << 14, 1 << 18
_FLAGS = _BICUBIC | _FULL_CHROMA_OUT | _FULL_CHROMA_IN | _ACCURATE
_LIMITED, _FULL = 1, 2
# FFmpeg's matrices -> swscale's, where both know them.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_SIDE_DATA = (
    *("DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"),
    *("SPHERICAL", "STEREO3D", "DOVI_METADATA", "DYNAMIC_HDR_PLUS"),
)
_UPRIGHT = (1 << 16, 0, 0, 1 << 16)

RGB16 = "rgb48le"
"""FFmpeg's name of (H, W, 3) uint16 RGB."""


@dataclass(frozen=True)
class Colour:
    """FFmpeg's numbers of the colour tags of a video, as a stream carries them."""

    matrix: int
    range: int
    transfer: int
    primaries: int

    @classmethod
    def of(cls, stream: VideoStream, encoder: str) -> "Colour":
        """The tags for what `encoder` makes of a stream."""
        tags = stream.codec_context
        colour = cls(tags.colorspace, tags.color_range, tags.color_trc, tags.color_primaries)
        if stream.format.is_rgb or colour.matrix == 0:
            # The output is YUV: its matrix must be named, and limited range plays everywhere.
            matrix = matrix_of(colour.matrix, stream.width, stream.height)
            colour = replace(colour, matrix=matrix, range=_LIMITED)
        elif "yuvj" in stream.format.name:
            colour = replace(colour, range=_FULL)
        if encoder == "mjpeg":
            colour = replace(colour, range=_FULL, matrix=5)  # what JPEG is by definition
        return colour


def to_rgb(frame: VideoFrame, bits: int, reformatter: VideoReformatter) -> VideoFrame:
    """The frame in RGB of 8 or 16 bits, the caller's own; time stamps and side data come along.
    `reformatter` is for one thread, and quick where frames are alike."""
    matrix = matrix_of(frame.colorspace, frame.width, frame.height)
    rgb = reformatter.reformat(
        frame,
        format=RGB16 if bits > 8 else "rgb24",
        interpolation=_FLAGS,
        src_colorspace=None if frame.format.is_rgb else matrix,
        src_color_range=_range_of(frame),
        dst_color_range=_FULL,
    )
    rgb.make_writable()  # a frame that needed no conversion may still be the decoder's own
    return rgb


class PixelWriter:
    """Turns RGB frames into those of an encoder, of its size and format. For one thread. `colour`
    are the tags of the output; the unspecified ones are guessed as on reading."""

    def __init__(self, width: int, height: int, pixel_format: str, colour: Colour) -> None:
        self._width, self._height, self._format = width, height, pixel_format
        self._colour, self._reformatter = colour, VideoReformatter()
        self._matrix = matrix_of(colour.matrix, width, height)

    def from_rgb(self, frame: VideoFrame, original: VideoFrame | None = None) -> VideoFrame:
        """The restored RGB `frame` as the encoder takes it. What RGB could not hold of the
        `original`, as it was decoded, is added again if the output has its size and range."""
        converted = self._convert(frame)
        if (
            original is not None
            and (original.width, original.height) == (self._width, self._height)
            and len(converted.planes) == 3
            and self._colour.range != _FULL
        ):
            bits = original.format.components[0].bits
            held = self._convert(to_rgb(original, bits, VideoReformatter()))
            whole = self._convert(original)
            top = (1 << converted.format.components[0].bits) - 1
            for number in range(3):
                samples = samples_of(converted, number)
                lost = samples_of(whole, number).astype(np.int32) - samples_of(held, number)
                samples[:] = np.clip(samples + lost, 0, top)
        converted.colorspace, converted.color_range = self._colour.matrix, self._colour.range
        converted.pict_type = 0  # else the encoder would repeat the input's choice of key frames
        return converted

    def _convert(self, frame: VideoFrame) -> VideoFrame:
        """The frame, RGB or YUV, in the encoder's size and format."""
        return self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format=self._format,
            interpolation=_FLAGS,
            src_colorspace=None if frame.format.is_rgb else self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=_range_of(frame),
            dst_color_range=_FULL if self._colour.range == _FULL else _LIMITED,
        )


def exceeds_rgb(frame: VideoFrame) -> bool:
    """Whether a frame of limited range is somewhere brighter than white, as cameras record
    highlights, or darker than black: RGB cuts that off."""
    if _range_of(frame) == _FULL or not frame.format.is_planar:
        return False
    luma, unit = samples_of(frame, 0), 1 << (frame.format.components[0].bits - 8)
    return bool(luma.max() > 235 * unit or luma.min() < 16 * unit)


def is_transparent(frame: VideoFrame) -> bool:
    """Whether any pixel of a frame is not opaque."""
    if not frame.format.has_palette and not any(c.is_alpha for c in frame.format.components):
        return False
    return bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())


def samples_of(frame: VideoFrame, number: int) -> Image:
    """A plane of a frame, not copied: (H, W) uint8 or uint16 of planar YUV, (H, 3 W) of RGB."""
    plane, bits = frame.planes[number], frame.format.components[number].bits
    kind = np.uint8 if bits == 8 else np.uint16
    rows = np.frombuffer(cast(memoryview, plane), kind).reshape(plane.height, -1)
    return rows[:, : plane.width * (1 if frame.format.is_planar else 3)]


def pixels_of(frame: VideoFrame) -> Image:
    """The pixels of an RGB frame, copied: (H, W, 3), uint8 or uint16."""
    return np.array(frame.to_ndarray(), order="C")  # a copy: the frame may be written to


def frame_of(pixels: Image) -> VideoFrame:
    """An RGB frame with `pixels` (H, W, 3) uint8 or uint16."""
    kind = RGB16 if pixels.dtype == np.uint16 else "rgb24"
    return VideoFrame.from_ndarray(np.ascontiguousarray(pixels), kind)


def frame_like(frame: VideoFrame, pixels: Image) -> VideoFrame:
    """An RGB frame with `pixels` (H, W, 3) uint8 or uint16 and all else of another; the other
    itself where the size is the same."""
    height, width = pixels.shape[:2]
    # FFmpeg carries over what PyAV can't: where the chroma lay, and shall lie again.
    frame = frame.reformat(width=width, height=height)
    np.copyto(samples_of(frame, 0), pixels.reshape(height, -1), casting="no")
    return frame


def matrix_of(colorspace: int, width: int, height: int) -> int:
    """swscale's number of a YUV matrix, by FFmpeg's; where that says nothing, BT.709's for HD and
    BT.601's below."""
    return _MATRICES.get(colorspace) or (1 if width >= 1280 or height > 576 else 5)


def _range_of(frame: VideoFrame) -> int:
    """FFmpeg's number of the range of a frame, which some formats imply."""
    full = frame.color_range == _FULL or frame.format.is_rgb or "yuvj" in frame.format.name
    return _FULL if full else _LIMITED


def side_data_of(frame: VideoFrame) -> dict[str, bytes]:
    """What lies beside a frame's pixels, as far as we know of it, by FFmpeg's names."""
    found = {}
    for kind in _SIDE_DATA:
        with suppress(KeyError, ValueError):  # PyAV before 19 stumbles over what it can't name
            data = frame.side_data.get(kind)
            if isinstance(data, Buffer):
                found[kind] = bytes(data)
    return found


def display_matrix_of(frame: VideoFrame, side_data: Mapping[str, bytes]) -> DisplayMatrix | None:
    """How a player shall turn the frame that has this `side_data`; None for not at all."""
    if "DISPLAYMATRIX" in side_data:
        numbers: DisplayMatrix = struct.unpack("=9i", side_data["DISPLAYMATRIX"])
    else:
        # All that is known of it where other side data have no name; phones don't mirror.
        across, down = ((1, 0), (0, -1), (-1, 0), (0, 1))[round(frame.rotation / 90) % 4]
        numbers = tuple(n << 16 for n in (across, down, 0, -down, across, 0, 0, 0, 1 << 14))
    return None if numbers[:2] + numbers[3:5] == _UPRIGHT else numbers


def turn_upright(pixels: Image, display_matrix: DisplayMatrix | None) -> Image:
    """Turns and mirrors `pixels` (H, W, 3) as a player would: quarter turns only."""
    if display_matrix is None:
        return pixels
    a, b, _, c, d = display_matrix[:5]
    across, down = a, d
    if abs(a) + abs(d) < abs(b) + abs(c):  # a quarter turn
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    if across < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
