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

from deblurcli.errors import UsageError, already_exists, cannot_write
from deblurcli.io.files import atomic_output
from deblurcli.io.image import Image

MAX_EMBEDDED_BYTES = 14 * 2**20  # what all pictures of one file may take; as base64 a third more
TILE_PX = 1024
MAX_WHOLE_PX = 2048  # pictures that are larger come in tiles, with an overview

MIME_TYPES = dict.fromkeys((".mp4", ".m4v", ".mov"), "video/mp4")
MIME_TYPES |= {".webm": "video/webm", ".webp": "image/webp"}
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
    """A part of a picture at its full size: where it lies in pixels, and its file."""

    left: int
    top: int
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Layer:
    """One side of a slider: its label, what it shows, and tiles for a closer look."""

    label: str
    source: str  # a file of the page's folder
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


@dataclass
class Page:
    """A page in the making, and the folder with its pictures and videos."""

    target: Path
    overwrite: bool
    path: Path  # the folder while it is filled
    keeps_folder: bool = False  # beside the page; else the page takes in what is in it
    count: int = 0

    @property
    def folder(self) -> Path:
        """Where the folder lies in the end: ``page_files`` beside ``page.html``."""
        return self.target.with_name(f"{self.target.stem}_files")

    def size_bytes(self) -> int:
        """Of all that is in the folder."""
        return sum(path.stat().st_size for path in self.path.iterdir())

    def add(self, suffix: str) -> Path:
        """Where to write a new file."""
        self.count += 1
        return self.path / f"{self.count:04}{suffix}"

    def place(self, title: str, caption: str, pictures: Sequence[tuple[str, Image]]) -> Slider:
        """Writes labelled pictures of one size, in full, large ones in tiles with an overview."""
        height, width = pictures[0][1].shape[:2]
        layers = []
        for label, image in pictures:
            whole = PillowImage.fromarray(image)
            tiles = []
            if max(width, height) > MAX_WHOLE_PX:
                for top, left in product(range(0, height, TILE_PX), range(0, width, TILE_PX)):
                    right, bottom = min(left + TILE_PX, width), min(top + TILE_PX, height)
                    source = self._write(_webp(whole.crop((left, top, right, bottom)), 92))
                    tiles.append(Tile(left, top, right - left, bottom - top, source))
                whole.thumbnail((MAX_WHOLE_PX, MAX_WHOLE_PX), PillowImage.Resampling.LANCZOS)
            layers.append(Layer(label, self._write(_webp(whole, 92)), tuple(tiles)))
        return Slider(title, caption, width, height, tuple(layers))

    def place_reduced(
        self, title: str, caption: str, pictures: Sequence[tuple[str, Image]], max_bytes: int
    ) -> Slider:
        """As `place`, so small that they take no more than `max_bytes`; the caption says so."""
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
        layers = tuple(map(Layer, labels, map(self._write, encoded)))
        return Slider(title, caption, width, height, layers)

    def _write(self, data: bytes) -> str:
        path = self.add(".webp")
        path.write_bytes(data)
        return path.name

    def address(self, source: str) -> str:
        """Where the page finds a file of the folder: beside it, or in itself."""
        if self.keeps_folder:
            return f"{quote(os.fsencode(self.folder.name))}/{source}"
        data = base64.b64encode((self.path / source).read_bytes()).decode("ascii")
        return f"data:{MIME_TYPES[Path(source).suffix]};base64,{data}"

    def write(self, template: str, **content: object) -> None:
        """Writes the page: one of ``templates``, filled with `content`. It may load what lies in
        a folder that is kept, else nothing at all.

        Raises DeblurError where it exists and may not be overwritten, or can't be written.
        """
        # From a disk, 'self' is no origin that browsers know.
        content |= {"sources": "'self' file:" if self.keeps_folder else "", "address": self.address}
        page = _TEMPLATES.get_template(template).stream(content)
        with atomic_output(self.target, overwrite=self.overwrite) as part, part.open("wb") as file:
            # File names need not be text: what UTF-8 can't hold is shown as question marks.
            page.dump(file, encoding="utf-8", errors="replace")


@contextmanager
def new_page(target: Path, *, overwrite: bool, is_one_file: bool = False) -> Iterator[Page]:
    """Gives a page to fill and write; where it is one file in any case, its folder is not kept.

    A folder that is kept gets its name at the end; else, and on any exception, nothing is left of
    it. The folder of a page that is overwritten goes in either case, but not on an exception.

    Raises UsageError where page or folder exists and `overwrite` is false, or the folder holds
    what is not a page's; DeblurError where it can't be written.
    """
    page = Page(target, overwrite, target.with_name(f"{target.stem}_files.{os.getpid()}.part"))
    final = page.folder
    for path in (target,) if is_one_file else (target, final):
        if os.path.lexists(path) and not overwrite:
            raise already_exists(path)
    if os.path.lexists(final) and not is_one_file:
        names = final.iterdir() if final.is_dir() else [final]
        if not all(name.stem.isdecimal() and name.suffix in MIME_TYPES for name in names):
            raise UsageError(final, "holds what is not of such a page", "give another -o")
    try:
        page.path.mkdir()
        yield page
        if overwrite and not is_one_file:  # the old page's, also where the new one needs none
            shutil.rmtree(final, ignore_errors=True)
        if page.keeps_folder:
            page.path.rename(final)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(page.path, ignore_errors=True)


def _webp(image: PillowImage.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
