"""Animated GIF, WebP, PNG and AVIF: all frames, with their times, loops and transparency.

Pillow reads and writes them. Its GIF and PNG writers hold all frames until the end, so memory
grows with an animation as it does not with a video. Neighbouring frames that show the same
picture may become one that is shown as long.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deblurcli.errors import DECODER_ERRORS, DeblurError, cannot_read
from deblurcli.io.files import atomic_output
from deblurcli.io.videos.info import open_video
from deblurcli.io.videos.overlap import read_ahead
from deblurcli.io.videos.pixels import Pixels
from deblurcli.io.videos.restoring import Progress, VideoResult
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
_FRAMES_AHEAD = 2
_PILLOW_ERRORS = (*DECODER_ERRORS, Image.DecompressionBombError)
_LOSSY_QUALITY = 90
# How much worse a frame may fit the palette of the frame before it and still take it.
_PALETTE_PATIENCE = 1.25
_DITHER_LEVELS = 6


@dataclass(frozen=True)
class Animation:
    """What an animation is, beside its pictures.

    Attributes:
        durations_ms: how long each frame is shown.
        frame_count: how many there should be; more than `durations_ms` where it is damaged.
        transparent: whether any pixel of any frame is not opaque.
        loop: how often it is played; 0 is for ever, None once.
        has_palette: whether it is a PNG with a palette.
        has_16_bits: more than Pillow reads and writes.
        damage: what is known to be missing at its end, in words.
        options: how to write it as it was.
    """

    source: Path
    durations_ms: list[int]
    frame_count: int
    transparent: bool
    loop: int | None
    has_palette: bool
    has_16_bits: bool
    damage: str
    options: dict[str, object]

    @classmethod
    def read(cls, source: Path, *, strip: bool) -> Animation:
        """Reads how long each frame is shown, without keeping any.

        Raises:
            DeblurError: `source` can't be read.
        """
        kept = {"icc_profile", "default_image"} | (set() if strip else {"exif", "xmp", "comment"})
        durations: list[int] = []
        damage = ""
        try:
            data = source.read_bytes()
            with Image.open(source, formats=_READ_FORMATS) as image:
                options = {key: value for key, value in image.info.items() if key in kept}
                if image.format == "WEBP" and b"VP8L" in data[:4096]:
                    options["lossless"] = True
                loop = image.info.get("loop")
                has_palette = image.format == "PNG" and image.mode == "P"
                has_16_bits = image.format == "PNG" and data[24] == 16
                transparent = has_palette and "transparency" in image.info
                with suppress(*_PILLOW_ERRORS):  # the end, or a damaged frame
                    for number in itertools.count():
                        image.seek(number)
                        alpha = np.asarray(image.convert("RGBA"))[..., 3]
                        transparent = transparent or bool((alpha < 255).any())
                        durations.append(round(image.info.get("duration", 0)))
                frame_count = len(durations)
                with suppress(*_PILLOW_ERRORS):  # where it is damaged: for GIF it counts them
                    frame_count = int(getattr(image, "n_frames", 1))
                if image.format == "GIF" and data.rstrip(b"\0")[-1:] != b";":
                    # For Pillow the frames before the missing end mark are simply all.
                    damage = f"ends in the middle of frame {max(1, len(durations))}"
        except UnidentifiedImageError as error:
            reason = "is no animated GIF, WebP, PNG or AVIF"
            raise DeblurError(source, reason, "check the file") from error
        except _PILLOW_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise cannot_read(source, error) from error
            raise DeblurError(source, "can't be decoded", "copy it again") from error
        return cls(
            source,
            durations or [0],
            frame_count,
            transparent,
            loop,
            has_palette,
            has_16_bits,
            damage,
            options,
        )

    @property
    def hidden_first(self) -> bool:
        """Whether the first frame is only for viewers that show no animations."""
        return bool(self.options.get("default_image"))

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yields the frames as (H, W, 4) RGBA, each as it is shown, as far as they decode."""
        # Pillow lays parts of a frame over the one before wrongly where PNG has a palette; FFmpeg
        # knows nothing of the picture for viewers without animations.
        if self.has_palette and not self.hidden_first:
            with closing(open_video(self.source)) as container, suppress(av.FFmpegError):
                for shown in container.decode(video=0):
                    yield shown.to_ndarray(format="rgba").astype(np.uint8)
            return
        # Opened anew: going back to the first frame loses what is transparent.
        with Image.open(self.source, formats=_READ_FORMATS) as image:
            for number in range(self.frame_count):
                try:
                    image.seek(number)
                    frame = np.array(image.convert("RGBA"))
                except _PILLOW_ERRORS:
                    return
                yield frame

    def save_options(self, output_format: str) -> dict[str, object]:
        """What Pillow has to be told to write the animation in a format as it was."""
        durations_ms = self.durations_ms[1:] if self.hidden_first else self.durations_ms
        options = {**self.options, "duration": durations_ms}
        if output_format != "PNG":
            options.pop("default_image", None)
        if output_format == "GIF":
            options.pop("icc_profile", None)
            if self.loop is not None:
                options["loop"] = self.loop
            if self.transparent:
                options["disposal"] = 2
        elif output_format != "AVIF":
            # WebP and PNG have no "once" beside a count: there it is 1.
            options["loop"] = 1 if self.loop is None else self.loop
        if output_format in ("AVIF", "WEBP"):
            options["quality"] = _LOSSY_QUALITY
        return options


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
    animation = Animation.read(source, strip=strip)
    total, done, steadier = len(animation.durations_ms), 0, Steadier(restore)
    # A picture that is no part of the animation: only PNG has a place for it.
    skipped = int(animation.hidden_first and output_format != "PNG")
    palettes = StillPalettes() if output_format == "GIF" else None
    with closing(read_ahead(animation.frames(), _FRAMES_AHEAD)) as frames:

        def restored() -> Iterator[Image.Image]:
            nonlocal done
            for frame in itertools.islice(frames, skipped, None):
                sharp = steadier(frame[..., :3].copy())
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
                **animation.save_options(output_format),
            )
    damage = animation.damage
    if not damage and done + skipped < animation.frame_count:
        damage = f"damaged from frame {done + skipped + 1} on"
    notes = ("its 16 bits become 8",) if animation.has_16_bits else ()
    return VideoResult(done, notes, (damage,) if damage else ())


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
