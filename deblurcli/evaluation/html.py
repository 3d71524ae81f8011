"""Web pages from the templates in ``templates``: tables, bars, and sliders between pictures.

A page forbids itself the network. Its pictures are within the one file as long as they fit;
otherwise they lie in a folder beside it, large ones in tiles that the browser loads as they are
looked at, or, where one file is wanted, they are made smaller.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from PIL import Image as PillowImage

from deblurcli.errors import UsageError, already_exists, cannot_write
from deblurcli.evaluation.metrics import Image
from deblurcli.io.files import atomic_output

MAX_EMBEDDED_BYTES = 14 * 2**20
"""What all pictures of one file may take; as base64 a third more."""

TILE_PX = 1024
MAX_WHOLE_PX = 2048
"""Pictures in the folder beside a page that are larger come in tiles, with an overview."""

_QUALITY = 92
_REDUCED = ((2048, 92), (1600, 90), (1280, 86), (960, 82), (720, 78), (480, 72))
_MAX_WEBP_PX = 16383
_MAX_EMBEDDED_PX = 50_000_000  # what a browser shows in one piece without trouble
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("deblurcli.evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Tile:
    """A part of a picture at its full size: where it lies in pixels, and its address."""

    left: int
    top: int
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Layer:
    """One side of a slider: its label, where the browser gets it, and tiles for a closer look."""

    label: str
    source: str
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Slider:
    """Pictures, or videos, of one size under a slider; the first two show at the start.

    Attributes:
        title, caption: above the pictures.
        width, height: in pixels, as they can be looked at 1:1.
        fps: of videos; None for pictures.
    """

    title: str
    caption: str
    width: int
    height: int
    layers: tuple[Layer, ...]
    fps: float | None = None


@dataclass(frozen=True)
class Bar:
    """A row of bars: one value for each series, None where it has none."""

    name: str
    values: tuple[float | None, ...]


def write_page(
    target: Path,
    template: str,
    *,
    title: str,
    lead: Sequence[str],
    footer: Sequence[str],
    overwrite: bool = False,
    beside: bool = False,
    **content: object,
) -> None:
    """Writes a page.

    Args:
        target: the HTML file.
        template: which of ``templates`` renders `content`.
        title, lead, footer: plain text above and below it.
        overwrite: replace the file if it exists.
        beside: it may load pictures that lie beside it; else nothing at all.

    Raises:
        DeblurError: the file exists and `overwrite` is false, or it can't be written.
    """
    with atomic_output(target, overwrite=overwrite) as part, part.open("wb") as file:
        page = _TEMPLATES.get_template(template)
        # File names need not be text: what UTF-8 can't hold is shown as question marks.
        page.stream(
            title=title,
            lead=lead,
            footer=footer,
            # From a disk, 'self' is no origin that browsers know.
            sources="'self' file:" if beside else "",
            **content,
        ).dump(file, encoding="utf-8", errors="replace")


def check_pictures(pictures: Sequence[tuple[str, Image]]) -> None:
    """Raises ValueError unless there are two or more of one size."""
    if len(pictures) < 2 or len({image.shape for _, image in pictures}) != 1:
        raise ValueError("two or more pictures of one size wanted")


def embed(
    title: str, caption: str, pictures: Sequence[tuple[str, Image]], *, max_bytes: int
) -> Slider | None:
    """Puts pictures at their full size into the page itself; None where they take too much.

    Args:
        pictures: labels and images, two or more, all of one size.
        max_bytes: what they may take together.

    Raises:
        ValueError: fewer than two pictures, or of different sizes.
    """
    check_pictures(pictures)
    height, width = pictures[0][1].shape[:2]
    if max(width, height) > _MAX_WEBP_PX or width * height > _MAX_EMBEDDED_PX:
        return None
    encoded = [_webp(PillowImage.fromarray(image), _QUALITY) for _, image in pictures]
    if sum(map(len, encoded)) > max_bytes:
        return None
    layers = (
        Layer(label, data_uri("image/webp", data))
        for (label, _), data in zip(pictures, encoded, strict=True)
    )
    return Slider(title, caption, width, height, tuple(layers))


def embed_reduced(
    title: str, caption: str, pictures: Sequence[tuple[str, Image]], *, max_bytes: int
) -> Slider:
    """Puts pictures into the page itself, smaller and smaller until they fit; the caption says
    so.

    Raises:
        ValueError: fewer than two pictures, or of different sizes.
    """
    check_pictures(pictures)
    images = [PillowImage.fromarray(image) for _, image in pictures]
    full = images[0].size
    for side_px, quality in _REDUCED:
        for image in images:
            image.thumbnail((side_px, side_px), PillowImage.Resampling.LANCZOS)
        encoded = [_webp(image, quality) for image in images]
        if sum(map(len, encoded)) <= max_bytes:
            break
    width, height = images[0].size
    if (width, height) != full:
        caption += f" · shown at {width}x{height}, reduced from {full[0]}x{full[1]}"
    layers = (
        Layer(label, data_uri("image/webp", data))
        for (label, _), data in zip(pictures, encoded, strict=True)
    )
    return Slider(title, caption, width, height, tuple(layers))


@dataclass
class PageFolder:
    """The folder beside a page that holds its pictures and videos.

    Attributes:
        path: where the files are written.
        name: of the folder in the end, as the page calls it.
        count: how many files it holds.
    """

    path: Path
    name: str
    count: int = 0

    def add(self, suffix: str) -> tuple[Path, str]:
        """A new file: where to write it, and its address in the page."""
        self.count += 1
        name = f"{self.count:04}{suffix}"
        return self.path / name, f"{quote(os.fsencode(self.name))}/{name}"

    def place(self, title: str, caption: str, pictures: Sequence[tuple[str, Image]]) -> Slider:
        """Writes pictures at their full size, large ones in tiles with an overview.

        Raises:
            ValueError: fewer than two pictures, or of different sizes.
            OSError: the disk is full, say.
        """
        check_pictures(pictures)
        height, width = pictures[0][1].shape[:2]
        layers = []
        for label, image in pictures:
            whole = PillowImage.fromarray(image)
            tiles = []
            if max(width, height) > MAX_WHOLE_PX:
                for top in range(0, height, TILE_PX):
                    for left in range(0, width, TILE_PX):
                        right, bottom = min(left + TILE_PX, width), min(top + TILE_PX, height)
                        source = self._write(whole.crop((left, top, right, bottom)), _QUALITY)
                        tiles.append(Tile(left, top, right - left, bottom - top, source))
                whole.thumbnail((MAX_WHOLE_PX, MAX_WHOLE_PX), PillowImage.Resampling.LANCZOS)
            layers.append(Layer(label, self._write(whole, _QUALITY), tuple(tiles)))
        return Slider(title, caption, width, height, tuple(layers))

    def _write(self, image: PillowImage.Image, quality: int) -> str:
        path, source = self.add(".webp")
        path.write_bytes(_webp(image, quality))
        return source


@contextmanager
def page_folder(target: Path, *, overwrite: bool) -> Iterator[PageFolder]:
    """Gives a folder for the files of the page `target`, ``page_files`` beside ``page.html``.

    It gets its name at the end, when the caller has written all, the page included; on any
    exception nothing is left of it.

    Raises:
        UsageError: it exists and `overwrite` is false, or it holds files that are not a page's.
        DeblurError: it can't be written.
    """
    final = target.with_name(f"{target.stem}_files")
    if os.path.lexists(final):
        if not overwrite:
            raise already_exists(final)
        if not final.is_dir() or not all(
            re.fullmatch(r"\d{4,}\.(webp|mp4|m4v|mov|webm)", path.name) for path in final.iterdir()
        ):
            raise UsageError(final, "holds what is not of such a page", "give another -o")
    part = target.with_name(f"{target.stem}_files.{os.getpid()}.part")
    try:
        part.mkdir()
        yield PageFolder(part, final.name)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def data_uri(mime_type: str, data: bytes) -> str:
    """The address of what is within the page itself."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


def _webp(image: PillowImage.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
