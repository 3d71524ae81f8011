"""Animated GIF, WebP, PNG and AVIF: all frames, with their times, loops and transparency.

Pillow reads and writes them. All restored frames are held until the end, so memory grows with an
animation as it does not with a video. Neighbouring frames that show the same picture may become
one that is shown as long.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from deblurcli.errors import DECODER_ERRORS, DeblurError, cannot_read
from deblurcli.io.files import atomic_output
from deblurcli.io.options import ClipOptions
from deblurcli.io.videos.info import open_video
from deblurcli.io.videos.pixels import Pixels
from deblurcli.io.videos.restoring import VideoResult
from deblurcli.io.videos.steadying import Restore, Steadier

ANIMATION_FORMATS = {
    ".gif": "GIF",
    ".webp": "WEBP",
    ".png": "PNG",
    ".apng": "PNG",
    ".avif": "AVIF",
}
"""Pillow's format by the ending of the output."""

_READ_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_PILLOW_ERRORS = (*DECODER_ERRORS, Image.DecompressionBombError)
_LOSSY_QUALITY = 90
# How much worse a frame may fit the palette of the frame before it and still take it.
_PALETTE_PATIENCE = 1.25
_DITHER_LEVELS = 6


def restore_animation(  # noqa: PLR0912, PLR0915 - one page, from file to file
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    restore: Restore,
    options: ClipOptions | None = None,
    **changes: Any,
) -> VideoResult:
    """Restores every frame of an animated GIF, WebP, PNG or AVIF.

    Args:
        source: the animation.
        target: the file to write, with one of the same endings.
        restore: restores one frame, (H, W, 3) uint8; transparency is kept beside it.
        options, changes: as in `restore_video`, of which `strip` leaves the colour profile,
            `overwrite` and `progress` apply.

    Raises:
        UsageError: `target` exists.
        DeblurError: `source` can't be read, or `target` not written.
    """
    source, target = Path(source), Path(target)
    options = replace(options or ClipOptions(), **changes)
    if target.suffix.lower() not in ANIMATION_FORMATS:
        known = " ".join(sorted(ANIMATION_FORMATS))
        raise DeblurError(target, "no animation is written with this ending", f"give {known}")
    output_format = ANIMATION_FORMATS[target.suffix.lower()]
    frames: list[Pixels] = []
    durations_ms: list[int] = []
    steadier = Steadier(restore)
    with atomic_output(target, overwrite=options.overwrite) as part:
        try:
            data = source.read_bytes()
            with Image.open(source, formats=_READ_FORMATS) as image:
                source_format, info, total = image.format, dict(image.info), None
                with suppress(*_PILLOW_ERRORS):  # where a GIF is damaged: it counts them
                    total = int(getattr(image, "n_frames", 1))
        except UnidentifiedImageError as error:
            reason = "is no animated GIF, WebP, PNG or AVIF"
            raise DeblurError(source, reason, "check the file") from error
        except _PILLOW_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise cannot_read(source, error) from error
            raise DeblurError(source, "can't be decoded", "copy it again") from error
        for frame, duration_ms in _decode(source):
            sharp = steadier(frame[..., :3].copy())
            frame[..., :3] = np.where(frame[..., 3:] == 0, frame[..., :3], sharp)
            frames.append(frame)
            durations_ms.append(duration_ms)
            if options.progress is not None:
                options.progress(len(frames), total)
        if not frames:
            raise DeblurError(source, "not one frame of it can be decoded", "copy it again")
        kept = {"icc_profile"} | (set() if options.strip else {"exif", "xmp", "comment"})
        settings = {key: value for key, value in info.items() if key in kept}
        settings |= {"duration": durations_ms, "quality": _LOSSY_QUALITY}
        if source_format == "WEBP" and b"VP8L" in data[:4096]:
            settings["lossless"] = True
        transparent = any((frame[..., 3] < 255).any() for frame in frames)
        if output_format == "GIF":
            settings.pop("icc_profile", None)
            settings["disposal"] = 2 if transparent else 0
        if output_format in ("WEBP", "PNG") or "loop" in info:
            # They have no "once" beside a count: there it is 1.
            settings["loop"] = info.get("loop", 1)
        shown = frames if transparent else [frame[..., :3] for frame in frames]
        to_picture = StillPalettes().reduce if output_format == "GIF" else Image.fromarray
        first, *others = map(to_picture, shown)
        first.save(part, output_format, save_all=True, append_images=others, **settings)
    notes, damage = [], ""
    if source_format == "PNG" and data[24] == 16:
        notes.append("its 16 bits become 8")
    is_first_hidden = bool(info.get("default_image"))
    if is_first_hidden:
        notes.append("its picture for viewers without animations is left out")
    if source_format == "GIF" and data.rstrip(b"\0")[-1:] != b";":
        # For Pillow the frames before the missing end mark are simply all.
        damage = f"ends in the middle of frame {len(frames)}"
    elif total is not None and len(frames) + is_first_hidden < total:
        damage = f"damaged from frame {len(frames) + 1} on"
    return VideoResult(len(frames), tuple(notes), (damage,) if damage else ())


def _decode(source: Path) -> Iterator[tuple[Pixels, int]]:
    """The frames as they are shown, (H, W, 4) RGBA, as far as they decode, and their ms."""
    with ExitStack() as opened:
        image = opened.enter_context(Image.open(source, formats=_READ_FORMATS))
        is_first_hidden, shown = bool(image.info.get("default_image")), None
        if image.format == "PNG" and image.mode == "P" and not is_first_hidden:
            # Pillow lays parts of a frame over the one before wrongly there.
            shown = opened.enter_context(closing(open_video(source))).decode(video=0)
        for number in itertools.count(int(is_first_hidden)):
            try:
                image.seek(number)
                if shown is None:
                    frame = np.array(image.convert("RGBA"))
                else:
                    # A copy: the decoder lays the next frame over its own.
                    frame = next(shown).to_ndarray(format="rgba").copy()
            except (*_PILLOW_ERRORS, av.FFmpegError, StopIteration):  # its end, or damage
                return
            yield frame, round(image.info.get("duration", 0))


class StillPalettes:
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
        rgb, error = frame[..., :3], np.inf
        if self._palette is not None:
            reduced, error = self._apply(rgb, self._palette)
        if self._palette is None or error > _PALETTE_PATIENCE * self._error + 0.5:
            self._palette = Image.fromarray(rgb).quantize(255, Image.Quantize.MEDIANCUT)
            reduced, self._error = self._apply(rgb, self._palette)
        if frame.shape[2] == 3:
            return reduced
        indices = np.array(reduced)
        indices[frame[..., 3] < 128] = 255
        picture = Image.fromarray(indices, "P")
        picture.putpalette(reduced.getpalette() or [])
        picture.info["transparency"] = 255
        return picture

    def _apply(self, rgb: Pixels, palette: Image.Image) -> tuple[Image.Image, float]:
        """`rgb` in the colours of `palette`, and how many levels it is off in the mean."""
        height, width = rgb.shape[:2]
        repeats = (-(-height // 8), -(-width // 8))
        pattern = np.tile(self._pattern, repeats)[:height, :width, None]
        mixed = np.clip(np.rint(rgb + _DITHER_LEVELS * pattern), 0, 255).astype(np.uint8)
        reduced = Image.fromarray(mixed).quantize(palette=palette, dither=Image.Dither.NONE)
        back = np.asarray(reduced.convert("RGB"), np.int16)
        return reduced, float(np.abs(back - rgb).mean())
