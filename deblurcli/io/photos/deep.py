"""Pictures with 16 bits per channel through FFmpeg's codecs, as Pillow cuts them to 8 bits."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

_CHANNELS = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}
_NAMES = {channels: name for name, channels in _CHANNELS.items()}


def decode(codec: str, data: bytes) -> npt.NDArray[np.uint16]:
    """The samples, ``(H, W, C)``, of a picture file.

    Args:
        codec: FFmpeg's name, ``"png"`` or ``"tiff"``.
        data: the whole file.

    Raises:
        ValueError: it is damaged, or not of 16 bits per channel.
    """
    import av

    context: Any = av.CodecContext.create(codec, "r")
    try:
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except av.error.FFmpegError as error:
        raise ValueError(f"truncated or damaged ({error.strerror})") from error
    if not frames:
        raise ValueError("truncated or damaged")
    frame = frames[0]
    name, order = frame.format.name[:-2], frame.format.name[-2:]
    if name not in _CHANNELS:
        raise ValueError(f"not supported ({frame.format.name})")
    channels = _CHANNELS[name]
    plane = frame.planes[0]
    samples = np.frombuffer(plane, ">u2" if order == "be" else "<u2")
    rows = samples.reshape(-1, plane.line_size // 2)[: frame.height, : frame.width * channels]
    return rows.reshape(frame.height, frame.width, channels).astype(np.uint16)


def encode_png(samples: npt.NDArray[np.uint16]) -> bytes:
    """A PNG file of ``(H, W, C)`` samples; C = 1 (grey), 2 (grey, alpha), 3 (RGB), 4 (RGBA)."""
    import av

    height, width, channels = samples.shape
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height = width, height
    context.pix_fmt = f"{_NAMES[channels]}be"
    context.time_base = Fraction(1, 1)
    context.options = {"pred": "paeth"}
    frame = av.VideoFrame(width, height, context.pix_fmt)
    plane = frame.planes[0]
    padded = np.zeros((plane.height, plane.line_size // 2), ">u2")
    padded[:height, : width * channels] = samples.reshape(height, -1)
    plane.update(padded.tobytes())
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
