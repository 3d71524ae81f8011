"""What lies beside the pixels of a frame: rotation, HDR, and what is left out of the output."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.video.frame import VideoFrame

DisplayMatrix = tuple[int, ...]
"""The nine numbers that say how a player shall turn a video."""

_UPRIGHT = (1 << 16, 0, 0, 1 << 16)
_LEFT_OUT = {
    "SPHERICAL": "its 360° projection is left out: players show it flat",
    "STEREO3D": "its layout of two eyes is left out: players show it flat",
    "DOVI_METADATA": "Dolby Vision is left out: players show its HDR10 or SDR picture",
    "DYNAMIC_HDR_PLUS": "HDR10+ is left out: players show its HDR10 picture",
}


@dataclass(frozen=True)
class HdrMetadata:
    """The screen that a video was mastered on (SMPTE ST 2086), and its light (CTA-861.3).

    Attributes:
        primaries: x, y of red, green, blue and white.
        luminance: darkest and brightest, in candela per square metre.
        light: the brightest pixel and the brightest frame in the mean, in the same unit; None
            where it is not said.
    """

    primaries: tuple[float, ...]
    luminance: tuple[float, float]
    light: tuple[int, int] | None

    def for_x265(self) -> str:
        """The parameters of libx265: in steps of 0.00002 and 0.0001."""
        xy = [round(value * 50_000) for value in self.primaries]
        low, high = (round(value * 10_000) for value in self.luminance)
        light = "" if self.light is None else f":max-cll={self.light[0]},{self.light[1]}"
        return f"master-display={self._display(xy)}L({high},{low}){light}"

    def for_svtav1(self) -> str:
        """The parameters of SVT-AV1."""
        low, high = self.luminance
        light = "" if self.light is None else f":content-light={self.light[0]},{self.light[1]}"
        return f"mastering-display={self._display(self.primaries)}L({high:.4f},{low:.4f}){light}"

    @staticmethod
    def _display(xy: tuple[float, ...] | list[int]) -> str:
        return "G({2},{3})B({4},{5})R({0},{1})WP({6},{7})".format(*xy)


def _find(frame: VideoFrame, kind: str) -> bytes | None:
    try:
        data = frame.side_data.get(kind)
    except (KeyError, ValueError):  # PyAV before 19 stumbles over what it has no name for
        return None
    return None if data is None else bytes(cast(Any, data))


def display_matrix_of(frame: VideoFrame) -> DisplayMatrix | None:
    """How a player shall turn the frame; None for not at all."""
    data = _find(frame, "DISPLAYMATRIX")
    if data is not None:
        numbers = tuple(int(n) for n in np.frombuffer(data, np.int32))
    else:
        # All that is known of it where other side data have no name; phones don't mirror.
        across, down = ((1, 0), (0, -1), (-1, 0), (0, 1))[round(frame.rotation / 90) % 4]
        numbers = tuple(n << 16 for n in (across, down, 0, -down, across, 0, 0, 0, 1 << 14))
    return None if numbers[:2] + numbers[3:5] == _UPRIGHT else numbers


def hdr_metadata_of(frame: VideoFrame) -> HdrMetadata | None:
    """The screen that a video was mastered on, where it says so completely."""
    data = _find(frame, "MASTERING_DISPLAY_METADATA")
    if data is None:
        return None
    numbers = struct.unpack_from("=22i", data)
    if not all(numbers[20:]) or 0 in numbers[1:20:2]:
        return None
    values = [top / bottom for top, bottom in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    light = _find(frame, "CONTENT_LIGHT_LEVEL")
    return HdrMetadata(
        tuple(values[:8]),
        (values[8], values[9]),
        None if light is None else struct.unpack_from("=2I", light),
    )


def left_out_of(frame: VideoFrame) -> list[str]:
    """What a frame carries that no output of ours does, in words."""
    return [words for kind, words in _LEFT_OUT.items() if _find(frame, kind) is not None]
