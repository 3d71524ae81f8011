"""Animated GIF, WebP, PNG and AVIF: all frames, with their times, loops and transparency.

Pillow reads and writes them. Its GIF and PNG writers hold all frames until the end, so memory
grows with an animation as it does not with a video. Neighbouring frames that show the same
picture may become one that is shown as long.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deblurcli.errors import DeblurError
from deblurcli.io.files import atomic_output
from deblurcli.io.videos.overlap import read_ahead
from deblurcli.io.videos.pixels import Pixels
from deblurcli.io.videos.restoring import Progress, Restore, VideoResult

ANIMATION_FORMATS = {
    ".gif": "GIF",
    ".webp": "WEBP",
    ".png": "PNG",
    ".apng": "PNG",
    ".avif": "AVIF",
}
"""Pillow's format by the ending of the output."""

_READ_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_FRAMES_AHEAD = 2
# What Pillow's decoders raise when fed with damaged data.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_LOSSY_QUALITY = 90
# How much worse a frame may fit the palette of the frame before it and still take it.
_PALETTE_PATIENCE = 1.25
_DITHER_LEVELS = 6


@dataclass(frozen=True)
class Animation:
    """What an animation is, beside its pictures.

    Attributes:
        durations_ms: how long each frame is shown.
        transparent: whether any pixel of any frame is not opaque.
        loop: how often it is played; 0 is for ever, None once.
        options: how to write it as it was.
    """

    durations_ms: list[int]
    transparent: bool
    loop: int | None
    options: dict[str, Any]

    @property
    def hidden_first(self) -> bool:
        """Whether the first frame is only for viewers that show no animations."""
        return bool(self.options.get("default_image"))


def restore_animation(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    restore: Restore,
    *,
    strip: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoResult:
    """Restores every frame of an animated GIF, WebP, PNG or AVIF.

    Args:
        source: the animation.
        target: the file to write, with one of the same endings.
        restore: restores one frame, (H, W, 3) uint8; transparency is kept beside it.
        strip: leave out all metadata but the colour profile.
        overwrite: `target` may be replaced.
        progress: is told about each frame.

    Raises:
        UsageError: `target` exists.
        DeblurError: `source` can't be read, or `target` not written.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in ANIMATION_FORMATS:
        known = " ".join(sorted(ANIMATION_FORMATS))
        raise DeblurError(target, "no animation is written with this ending", f"give {known}")
    output_format = ANIMATION_FORMATS[target.suffix.lower()]
    with ExitStack() as stack:
        try:
            image = stack.enter_context(Image.open(source, formats=_READ_FORMATS))
            animation = _study(image, source, strip=strip)
        except _DECODER_ERRORS as error:
            raise _unreadable(source, error) from error
        total = len(animation.durations_ms)
        damage: list[str] = []
        if _is_cut_off(image, source):
            damage.append(f"ends in the middle of frame {total}")
        decoded = _frames(image, animation, damage, hidden=output_format == "PNG")
        frames = stack.enter_context(closing(read_ahead(decoded, _FRAMES_AHEAD)))
        palettes = _Palettes() if output_format == "GIF" else None
        done = 0

        def restored() -> Iterator[Image.Image]:
            nonlocal done
            for frame in frames:
                sharp = restore(frame[..., :3].copy())
                frame[..., :3] = np.where(frame[..., 3:] == 0, frame[..., :3], sharp)
                done += 1
                if progress is not None:
                    progress(done, total)
                shown = frame if animation.transparent else frame[..., :3]
                yield Image.fromarray(shown) if palettes is None else palettes.reduce(shown)

        pictures = restored()
        with atomic_output(target, overwrite=overwrite) as part:
            first = next(pictures, None)
            if first is None:
                raise DeblurError(source, "not one frame of it can be decoded", "copy it again")
            first.save(
                part,
                output_format,
                save_all=True,
                # Pillow looks through the frames of a PNG twice.
                append_images=list(pictures) if output_format == "PNG" else pictures,
                **_save_options(animation, output_format),
            )
    return VideoResult(done, (), tuple(damage))


def _study(image: Image.Image, source: Path, *, strip: bool) -> Animation:
    """Reads how long each frame is shown, without keeping any."""
    head = source.read_bytes()[:4096]
    kept = {"icc_profile", "default_image"} | (set() if strip else {"exif", "xmp", "comment"})
    options = {key: value for key, value in image.info.items() if key in kept}
    if image.format == "WEBP" and b"VP8L" in head:
        options["lossless"] = True
    loop = image.info.get("loop")
    durations: list[int] = []
    transparent = False
    for number in itertools.count():
        try:
            image.seek(number)
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
        except _DECODER_ERRORS:
            break  # the end, or a damaged frame: `_frames` says so
        transparent = transparent or bool((alpha < 255).any())
        durations.append(round(image.info.get("duration", 0)))
    image.seek(0)
    return Animation(durations or [0], transparent, loop, options)


def _is_cut_off(image: Image.Image, source: Path) -> bool:
    """Whether a GIF ends before its end mark; for Pillow the frames so far are simply all."""
    return image.format == "GIF" and source.read_bytes().rstrip(b"\0")[-1:] != b";"


def _frames(
    image: Image.Image, animation: Animation, damage: list[str], *, hidden: bool
) -> Iterator[NDArray[np.uint8]]:
    """Yields the frames as (H, W, 4) RGBA, each as it is shown; `hidden`: the hidden one too."""
    whole = len(animation.durations_ms)
    try:
        count = int(getattr(image, "n_frames", 1))
    except _DECODER_ERRORS:  # for GIF it counts them
        count = whole + 1
    for number in range(0 if hidden or not animation.hidden_first else 1, count):
        try:
            image.seek(number)
            frame = np.array(image.convert("RGBA"))
        except _DECODER_ERRORS:
            if not damage:
                damage.append(f"damaged from frame {number + 1} on")
            return
        yield frame


def _save_options(animation: Animation, output_format: str) -> dict[str, Any]:
    durations_ms = animation.durations_ms[1:] if animation.hidden_first else animation.durations_ms
    options: dict[str, Any] = {**animation.options, "duration": durations_ms}
    if output_format != "PNG":
        options.pop("default_image", None)
    if output_format == "AVIF":
        return {**options, "quality": _LOSSY_QUALITY}
    if output_format == "GIF":
        options.pop("icc_profile", None)
        if animation.loop is not None:
            options["loop"] = animation.loop
        return {**options, "disposal": 2} if animation.transparent else options
    # WebP and PNG have no "once" beside a count: there it is 1.
    options["loop"] = 1 if animation.loop is None else animation.loop
    if output_format == "WEBP":
        options.update(quality=_LOSSY_QUALITY, method=4)
    return options


class _Palettes:
    """Reduces pictures to 256 colours so that what stands still does not flicker.

    A frame takes the palette of the one before it as long as that fits; and colours between two
    of the palette are mixed by a fixed pattern, which does not crawl as error diffusion does.
    """

    def __init__(self) -> None:
        self._palette: Image.Image | None = None
        self._error = 0.0
        bayer = np.array([[0]])
        for _ in range(3):
            bayer = np.block([[4 * bayer, 4 * bayer + 2], [4 * bayer + 3, 4 * bayer + 1]])
        self._pattern = (bayer + 0.5) / 64 - 0.5

    def reduce(self, frame: Pixels) -> Image.Image:
        """A picture (H, W, 3 or 4) with a palette; the last colour is for transparent pixels."""
        rgb = frame[..., :3]
        reduced = None if self._palette is None else self._apply(rgb, self._palette)
        if reduced is None or _error_of(reduced, rgb) > _PALETTE_PATIENCE * self._error + 0.5:
            self._palette = Image.fromarray(rgb).quantize(255, Image.Quantize.MEDIANCUT)
            reduced = self._apply(rgb, self._palette)
            self._error = _error_of(reduced, rgb)
        if frame.shape[2] == 3:
            return reduced
        indices = np.array(reduced)
        indices[frame[..., 3] < 128] = 255
        picture = Image.fromarray(indices, "P")
        picture.putpalette(reduced.getpalette() or [])
        picture.info["transparency"] = 255
        return picture

    def _apply(self, rgb: Pixels, palette: Image.Image) -> Image.Image:
        height, width = rgb.shape[:2]
        repeats = (-(-height // 8), -(-width // 8))
        pattern = np.tile(self._pattern, repeats)[:height, :width, None]
        mixed = np.clip(np.rint(rgb + _DITHER_LEVELS * pattern), 0, 255).astype(np.uint8)
        return Image.fromarray(mixed).quantize(palette=palette, dither=Image.Dither.NONE)


def _error_of(reduced: Image.Image, rgb: Pixels) -> float:
    back = np.asarray(reduced.convert("RGB"), np.int16)
    return float(np.abs(back - rgb).mean())


def _unreadable(source: Path, error: Exception) -> DeblurError:
    if isinstance(error, FileNotFoundError):
        return DeblurError(source, "no such file", "check the name")
    if isinstance(error, PermissionError):
        return DeblurError(source, "no permission to read it", "check its owner and mode")
    if isinstance(error, UnidentifiedImageError):
        return DeblurError(source, "is no animated GIF, WebP, PNG or AVIF", "check the file")
    return DeblurError(source, "can't be decoded", "copy it again")
