"""Self-contained web pages from the templates in ``templates``: tables, bars, and sliders between
pictures.

Everything is within the one file, pictures as data URIs, and the page forbids itself the network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image as PillowImage

from deblurcli.evaluation.metrics import Image
from deblurcli.io.files import atomic_output

PICTURES_BUDGET_BYTES = 14 * 2**20
"""What all pictures of a page may take; as base64 a third more."""

_SIDES_AND_QUALITIES = ((2048, 92), (1600, 90), (1280, 86), (960, 82), (720, 78), (480, 72))
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("deblurcli.evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Layer:
    """One picture of a slider: its label, and where the browser gets it."""

    label: str
    source: str


@dataclass(frozen=True)
class Slider:
    """Pictures of one size under a slider; the first two show at the start.

    Attributes:
        title, caption: above the pictures.
        width, height: of the pictures as they are embedded.
    """

    title: str
    caption: str
    width: int
    height: int
    layers: tuple[Layer, ...]


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
    **content: object,
) -> None:
    """Writes a page.

    Args:
        target: the HTML file.
        template: which of ``templates`` renders `content`.
        title, lead, footer: plain text above and below it.
        overwrite: replace the file if it exists.

    Raises:
        DeblurError: the file exists and `overwrite` is false, or it can't be written.
    """
    with atomic_output(target, overwrite=overwrite) as part, part.open("wb") as file:
        page = _TEMPLATES.get_template(template)
        # File names need not be text: what UTF-8 can't hold is shown as question marks.
        page.stream(title=title, lead=lead, footer=footer, **content).dump(
            file, encoding="utf-8", errors="replace"
        )


def make_slider(
    title: str, caption: str, pictures: Sequence[tuple[str, Image]], *, budget_bytes: int
) -> Slider:
    """Encodes pictures for a slider, smaller and smaller until they fit.

    Args:
        pictures: labels and images, two or more, all of one size.
        budget_bytes: what they may take together.

    Raises:
        ValueError: fewer than two pictures, or of different sizes.
    """
    if len(pictures) < 2 or len({image.shape for _, image in pictures}) != 1:
        raise ValueError("two or more pictures of one size wanted")
    for side_px, quality in _SIDES_AND_QUALITIES:
        sources = []
        for _, pixels in pictures:
            image = PillowImage.fromarray(np.ascontiguousarray(pixels))
            image.thumbnail((side_px, side_px), PillowImage.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality, method=4)
            encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
            sources.append(f"data:image/webp;base64,{encoded}")
        if sum(map(len, sources)) * 3 / 4 <= budget_bytes:
            break
    labels = (label for label, _ in pictures)
    layers = tuple(Layer(*layer) for layer in zip(labels, sources, strict=True))
    return Slider(title, caption, *image.size, layers)
