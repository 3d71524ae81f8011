"""Web pages from the templates in ``templates``: tables, bars, and sliders between pictures.

A page forbids itself the network. What it shows is put into a folder first, large pictures in
tiles that the browser loads as they are looked at. Where all that fits, the page takes it in;
else the folder stays beside it. Or the pictures are made smaller until they fit.
"""

import base64
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import quote

import jinja2
from PIL import Image as PillowImage

from deblurcli.deblurrer import Image
from deblurcli.errors import UsageError, already_exists, cannot_write
from deblurcli.io.files import atomic_output

MAX_EMBEDDED_BYTES = 14 * 2**20
"""What all pictures of one file may take; as base64 a third more."""

TILE_PX = 1024
MAX_WHOLE_PX = 2048
"""Pictures that are larger come in tiles, with an overview."""

MIME_TYPES = {
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
}
"""Of the files that a page may show."""

_REDUCED = ((2048, 92), (1600, 90), (1280, 86), (960, 82), (720, 78), (480, 72))
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("deblurcli.evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Tile:
    """A part of a picture at its full size: where it lies in pixels, and its source."""

    left: int
    top: int
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Layer:
    """One side of a slider: its label, what it shows, and tiles for a closer look."""

    label: str
    source: str  # a file of the page's folder, or the data themselves
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Slider:
    """Pictures, or videos, of one size in pixels; the first two show at the start."""

    title: str
    caption: str
    width: int
    height: int
    layers: tuple[Layer, ...]
    fps: float | None = None  # of videos


@dataclass(frozen=True)
class Bar:
    """A row of bars: for each series a value or None."""

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
    folder: "PageFolder | None" = None,
    **content: object,
) -> None:
    """Writes a page: one of ``templates``, filled with `content`, plain text above and below it.

    It may load what lies in a `folder` that is kept, else nothing at all. Raises DeblurError where
    the file exists and `overwrite` is false, or it can't be written.
    """
    with atomic_output(target, overwrite=overwrite) as part, part.open("wb") as file:
        page = _TEMPLATES.get_template(template)
        # File names need not be text: what UTF-8 can't hold is shown as question marks.
        page.stream(
            title=title,
            lead=lead,
            footer=footer,
            # From a disk, 'self' is no origin that browsers know.
            sources="'self' file:" if folder and folder.kept else "",
            address=folder.address if folder else str,
            **content,
        ).dump(file, encoding="utf-8", errors="replace")


def embed(
    title: str, caption: str, pictures: Sequence[tuple[str, Image]], *, max_bytes: int
) -> Slider:
    """Puts pictures of one size into the page itself, smaller and smaller until they take no more
    than `max_bytes`; the caption says so."""
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
    labels = (label for label, _ in pictures)
    uris = (_data_uri(".webp", data) for data in encoded)
    return Slider(title, caption, width, height, tuple(map(Layer, labels, uris)))


@dataclass
class PageFolder:
    """The folder with the pictures and videos of a page."""

    path: Path  # where the files are written
    final: Path  # beside the page, where they lie in the end if `kept`
    kept: bool = False
    count: int = 0

    def add(self, suffix: str) -> Path:
        """Where to write a new file."""
        self.count += 1
        return self.path / f"{self.count:04}{suffix}"

    def address(self, source: str) -> str:
        """Where the page finds what it shows: beside it, or in itself."""
        if source.startswith("data:"):
            return source
        if self.kept:
            return f"{quote(os.fsencode(self.final.name))}/{source}"
        return _data_uri(Path(source).suffix, (self.path / source).read_bytes())

    def place(self, title: str, caption: str, pictures: Sequence[tuple[str, Image]]) -> Slider:
        """Writes pictures of one size, in full, large ones in tiles with an overview."""
        height, width = pictures[0][1].shape[:2]
        layers = []
        for label, image in pictures:
            whole = PillowImage.fromarray(image)
            tiles = []
            if max(width, height) > MAX_WHOLE_PX:
                for top, left in product(range(0, height, TILE_PX), range(0, width, TILE_PX)):
                    right, bottom = min(left + TILE_PX, width), min(top + TILE_PX, height)
                    source = self._write(whole.crop((left, top, right, bottom)))
                    tiles.append(Tile(left, top, right - left, bottom - top, source))
                whole.thumbnail((MAX_WHOLE_PX, MAX_WHOLE_PX), PillowImage.Resampling.LANCZOS)
            layers.append(Layer(label, self._write(whole), tuple(tiles)))
        return Slider(title, caption, width, height, tuple(layers))

    def _write(self, image: PillowImage.Image) -> str:
        path = self.add(".webp")
        path.write_bytes(_webp(image, 92))
        return path.name

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.path.iterdir())


@contextmanager
def page_folder(target: Path, *, overwrite: bool) -> Iterator[PageFolder]:
    """Gives a folder for the files of the page `target`, ``page_files`` beside ``page.html``.

    If it is `kept`, it gets its name at the end, when the caller has written all, the page
    included; else, and on any exception, nothing is left of it. The folder of a page that is
    overwritten goes in either case, but not on an exception. Raises UsageError where it or the
    page exists and `overwrite` is false, or it holds what is not a page's.
    """
    final = target.with_name(f"{target.stem}_files")
    if target.exists() and not overwrite:
        raise already_exists(target)
    if os.path.lexists(final):
        if not overwrite:
            raise already_exists(final)
        names = final.iterdir() if final.is_dir() else [final]
        if not all(name.stem.isdecimal() and name.suffix in MIME_TYPES for name in names):
            raise UsageError(final, "holds what is not of such a page", "give another -o")
    part = target.with_name(f"{target.stem}_files.{os.getpid()}.part")
    try:
        part.mkdir()
        folder = PageFolder(part, final)
        yield folder
        if overwrite:  # the old page's, also where the new one needs none
            shutil.rmtree(final, ignore_errors=True)
        if folder.kept:
            part.rename(final)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _data_uri(suffix: str, data: bytes) -> str:
    return f"data:{MIME_TYPES[suffix]};base64,{base64.b64encode(data).decode('ascii')}"


def _webp(image: PillowImage.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
