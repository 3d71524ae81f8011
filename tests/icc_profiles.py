"""Small ICC profiles for tests, made from scratch."""

from __future__ import annotations

import struct

import numpy as np

# Columns of red, green and blue in XYZ relative to D50.
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _profile(space: bytes, pcs: bytes, class_: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padding = b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", name, start + len(data), len(content))
        data += content + padding
    white = struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    header = struct.pack(
        ">I4sI4s4s4s12s4s",
        start + len(data),
        b"test",
        0x04200000,
        class_,
        space,
        pcs,
        b"\x07\xe8\0\1\0\1" + bytes(6),
        b"acsp",
    )
    header = (header + bytes(28) + white).ljust(128, b"\0")
    return header + struct.pack(">I", len(tags)) + table + data


def _text(text: str) -> bytes:
    raw = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(raw), 28) + raw


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _curve(gamma: float | tuple[float, ...]) -> bytes:
    numbers = gamma if isinstance(gamma, tuple) else (gamma,)
    kind = {1: 0, 5: 3}[len(numbers)]
    fixed = (round(v * 65536) for v in numbers)
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *fixed)


def rgb_profile(columns: tuple[tuple[float, ...], ...], gamma: float | tuple[float, ...]) -> bytes:
    """A matrix profile with these primaries and this gamma or parametric curve."""
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {b"desc": _text("test"), b"cprt": _text("none"), b"wtpt": _xyz((0.9642, 1, 0.8249))}
    tags |= {name: _xyz(column) for name, column in zip(names, columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    tags = {b"desc": _text("test"), b"cprt": _text("none"), b"wtpt": _xyz((0.9642, 1, 0.8249))}
    return _profile(b"GRAY", b"XYZ ", b"mntr", tags | {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Inks that multiply, with a black generation of 80 %; lookup tables both ways."""
    from skimage.color import lab2rgb, rgb2lab

    axis = np.linspace(0, 1, 9)
    c, m, y, k = np.meshgrid(axis, axis, axis, axis, indexing="ij")
    rgb = (1 - np.stack([c, m, y], -1)) * (1 - k[..., None])
    lab = rgb2lab(rgb.reshape(-1, 1, 3)).reshape(-1, 3)
    forth = np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], -1)

    axis = np.linspace(0, 255, 33)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 1, 3)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours outside sRGB
        rgb = lab2rgb(np.concatenate([grid[..., :1] / 2.55, grid[..., 1:] - 128], -1))[:, 0]
    black = 0.8 * (1 - rgb.max(axis=1, keepdims=True))
    inks = 1 - np.clip(rgb / np.maximum(1 - black, 1e-6), 0, 1)
    back = np.concatenate([inks, black], -1) * 255

    def table(grid_points: int, inputs: int, outputs: int, values: np.ndarray) -> bytes:
        identity = bytes(range(256))
        matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        head = b"mft1\0\0\0\0" + struct.pack(">BBBx", inputs, outputs, grid_points) + matrix
        cells = np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()
        return head + identity * inputs + cells + identity * outputs

    tags = {b"desc": _text("test"), b"cprt": _text("none"), b"wtpt": _xyz((0.9642, 1, 0.8249))}
    tags |= dict.fromkeys((b"A2B0", b"A2B1"), table(9, 4, 3, forth))
    tags |= dict.fromkeys((b"B2A0", b"B2A1"), table(33, 3, 4, back))
    return _profile(b"CMYK", b"Lab ", b"prtr", tags)
