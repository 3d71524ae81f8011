"""Animated GIF, WebP, PNG and AVIF: all frames, with their times, loops and transparency.

Pillow reads and writes them. All restored frames are held until the end, so memory grows with an
animation as it does not with a video. Neighbouring frames that show the same picture may become
one that is shown as long.
"""

import io
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deblurcli.errors import DECODER_ERRORS, AnyPath, DeblurError, cannot_read
from deblurcli.io.files import atomic_output
from deblurcli.io.options import ClipOptions
from deblurcli.io.videos.info import open_video
from deblurcli.io.videos.neighbours import Restore, Steadier
from deblurcli.io.videos.restoring import VideoResult

ANIMATION_FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG", ".avif": "AVIF"}
"""Pillow's format by the ending of the output."""

_READ_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_PILLOW_ERRORS = (*DECODER_ERRORS, Image.DecompressionBombError)
_LOSSY_QUALITY = 90
# How much worse a frame may fit the palette of the frame before it and still take it.
_PALETTE_PATIENCE = 1.25
_DITHER_LEVELS = 6


def restore_animation(  # noqa: PLR0912, PLR0915 - one page, from file to file
    source: AnyPath,
    target: AnyPath,
    restore: Restore,
    options: ClipOptions | None = None,
    **changes: Any,
) -> VideoResult:
    """Restores every frame of an animated GIF, WebP, PNG or AVIF and writes one of these. `restore`
    gets frames of (H, W, 3) uint8; transparency is kept beside them. All else is as in
    `restore_video`; of the options `strip`, `overwrite` and `progress` apply."""
    source, target = Path(source), Path(target)
    options = replace(options or ClipOptions(), **changes)
    output_format = ANIMATION_FORMATS.get(target.suffix.lower())
    if output_format is None:
        known = " ".join(sorted(ANIMATION_FORMATS))
        raise DeblurError(target, "no animation is written with this ending", f"give {known}")
    frames: list[NDArray[np.uint8]] = []
    durations_ms: list[int] = []
    steadier, total = Steadier(restore), None
    with ExitStack() as opened, atomic_output(target, overwrite=options.overwrite) as part:
        try:
            data = source.read_bytes()
            image = opened.enter_context(Image.open(io.BytesIO(data), formats=_READ_FORMATS))
            info, is_first_hidden = dict(image.info), bool(image.info.get("default_image"))
            with suppress(*_PILLOW_ERRORS):  # where a GIF is damaged: it counts them
                total = int(getattr(image, "n_frames", 1))
        except _PILLOW_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise cannot_read(source, error) from error
            reason = "is no animated GIF, WebP, PNG or AVIF, or is damaged in its header"
            raise DeblurError(source, reason, "check the file") from error
        shown: Iterator[av.VideoFrame] | None = None
        if image.format == "PNG" and image.mode == "P" and not is_first_hidden:
            # Pillow lays parts of a frame over the one before wrongly there.
            shown = opened.enter_context(closing(open_video(source))).decode(video=0)
        for number in itertools.count(int(is_first_hidden)):
            try:
                image.seek(number)
                picture = next(shown).to_ndarray(format="rgba") if shown else image.convert("RGBA")
                frame = np.array(picture)  # a copy: the decoder lays the next frame over its own
            except (*_PILLOW_ERRORS, av.FFmpegError, StopIteration):  # its end, or damage
                break
            sharp = steadier(frame[..., :3].copy())
            frame[..., :3] = np.where(frame[..., 3:] == 0, frame[..., :3], sharp)
            frames.append(frame)
            durations_ms.append(round(image.info.get("duration", 0)))
            if options.progress is not None:
                options.progress(len(frames), total)
        if not frames:
            raise DeblurError(source, "not one frame of it can be decoded", "copy it again")
        kept = {"icc_profile"} | (set() if options.strip else {"exif", "xmp", "comment"})
        settings = {key: value for key, value in info.items() if key in kept}
        settings |= {"duration": durations_ms, "quality": _LOSSY_QUALITY}
        if image.format == "WEBP" and b"VP8L" in data[:4096]:
            settings["lossless"] = True
        transparent = any((frame[..., 3] < 255).any() for frame in frames)
        if output_format == "GIF":
            settings.pop("icc_profile", None)
            settings["disposal"] = 2 if transparent else 0
        if output_format in ("WEBP", "PNG") or "loop" in info:
            # They have no "once" beside a count: there it is 1.
            settings["loop"] = info.get("loop", 1)
        visible = frames if transparent else [frame[..., :3] for frame in frames]
        to_picture = StillPalettes().reduce if output_format == "GIF" else Image.fromarray
        first, *others = map(to_picture, visible)
        first.save(part, output_format, save_all=True, append_images=others, **settings)
    notes, damage = [], ""
    if image.format == "PNG" and data[24] == 16:
        notes.append("its 16 bits become 8")
    if is_first_hidden:
        notes.append("its picture for viewers without animations is left out")
    if image.format == "GIF" and data.rstrip(b"\0")[-1:] != b";":
        # For Pillow the frames before the missing end mark are simply all.
        damage = f"ends in the middle of frame {len(frames)}"
    elif total is not None and len(frames) + is_first_hidden < total:
        damage = f"damaged from frame {len(frames) + 1} on"
    return VideoResult(len(frames), tuple(notes), (damage,) if damage else ())


class StillPalettes:
    """Reduces pictures to 256 colours so that what stands still does not flicker. A frame takes the
    palette of the one before it as long as that fits; and colours between two of the palette are
    mixed by a fixed pattern, which does not crawl as error diffusion does."""

    def __init__(self) -> None:
        self._palette: Image.Image | None = None
        self._error = 0.0
        bayer = np.array([[0]])
        for _ in range(3):
            bayer = np.block([[4 * bayer, 4 * bayer + 2], [4 * bayer + 3, 4 * bayer + 1]])
        self._pattern = _DITHER_LEVELS * ((bayer + 0.5) / 64 - 0.5)

    def reduce(self, frame: NDArray[np.uint8]) -> Image.Image:
        """A picture (H, W, 3 or 4) with a palette; the last colour is for transparent pixels."""
        rgb, error = frame[..., :3], np.inf
        height, width = rgb.shape[:2]
        pattern = np.tile(self._pattern, (-(-height // 8), -(-width // 8)))[:height, :width, None]
        mixed = Image.fromarray(np.clip(np.rint(rgb + pattern), 0, 255).astype(np.uint8))
        if self._palette is not None:
            reduced = mixed.quantize(palette=self._palette, dither=Image.Dither.NONE)
            error = _difference(reduced, rgb)
        if self._palette is None or error > _PALETTE_PATIENCE * self._error + 0.5:
            self._palette = Image.fromarray(rgb).quantize(255, Image.Quantize.MEDIANCUT)
            reduced = mixed.quantize(palette=self._palette, dither=Image.Dither.NONE)
            self._error = _difference(reduced, rgb)
        if frame.shape[2] == 4:
            indices = np.array(reduced)
            indices[frame[..., 3] < 128] = 255
            palette, reduced = reduced.getpalette() or [], Image.fromarray(indices, "P")
            reduced.putpalette(palette)
            reduced.info["transparency"] = 255
        return reduced


def _difference(picture: Image.Image, rgb: NDArray[np.uint8]) -> float:
    """How many levels a picture is off in the mean."""
    return float(np.abs(np.asarray(picture.convert("RGB"), np.int16) - rgb).mean())
