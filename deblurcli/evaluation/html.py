"""Self-contained web pages: tables, bars, and sliders between pictures.

Everything is within the one file, pictures as data URIs, and the page forbids itself the
network. Styles, script and frame lie in the folder ``page_parts``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from deblurcli.io.files import atomic_output

Pixels = NDArray[np.uint8]

PICTURES_BUDGET_BYTES = 14 * 2**20
"""What all pictures of a page may take; as base64 a third more."""

_SIDES_AND_QUALITIES = ((2048, 92), (1600, 90), (1280, 86), (960, 82), (720, 78), (480, 72))


@dataclass(frozen=True)
class Picture:
    """One side of a slider: its label and ``(H, W, 3) uint8`` sRGB pixels."""

    label: str
    pixels: Pixels


@dataclass(frozen=True)
class Comparison:
    """Two or more pictures of one size under one slider.

    The first two show at the start; with more, the reader chooses for each side.
    """

    title: str
    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Bar:
    """A row of bars: one value for each series, None where it has none."""

    name: str
    values: tuple[float | None, ...]


def write_page(
    target: Path,
    *,
    title: str,
    lead: Iterable[str],
    body: Iterable[str],
    footer: Iterable[str],
    overwrite: bool = False,
) -> None:
    """Writes a page; `body` is HTML from the functions below, the other texts are plain.

    Raises:
        DeblurError: the file exists and `overwrite` is false, or it can't be written.
    """
    with atomic_output(target, overwrite=overwrite) as part:
        page = _part("page.html")
        for mark, text in (
            ("/*css*/", _part("page.css")),
            ("/*js*/", _part("page.js")),
            ("<!--title-->", escape(title)),
            ("<!--lead-->", paragraphs(lead)),
            ("<!--footer-->", paragraphs(footer)),
            ("<!--body-->", "\n".join(body)),  # last: it may hold anything
        ):
            page = page.replace(mark, text)
        # File names need not be text: what UTF-8 can't hold is shown as question marks.
        part.write_text(page, encoding="utf-8", errors="replace")


def paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{escape(text)}</h{level}>"


def table(
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    best: Iterable[tuple[int, int]] = (),
) -> str:
    """A table whose first column names the rows; `best` marks cells (row, column) from 0.

    Each row has the colour of its place, as `bars` have.
    """
    marked = set(best)
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = []
    for y, (name, cells) in enumerate(rows):
        inner = "".join(
            f"<td{_cell_class(cell, (y, x) in marked)}>{escape(cell) or '–'}</td>"
            for x, cell in enumerate(cells)
        )
        lines.append(
            f'<tr style="--c:{_colour(y)}"><th scope="row">{escape(name)}</th>{inner}</tr>'
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results">'
        f'<table class="summary"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def bars(rows: Sequence[Bar], series: Sequence[str], unit: str, *, first_colour: int = 1) -> str:
    """One row of bars for each picture, about a common zero, values beside them."""
    values = [v for row in rows for v in row.values if v is not None]
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    zero = -low / span * 100
    colours = [_colour(i + first_colour) for i in range(len(series))]
    legend = "".join(
        f'<li style="--c:{c}">{escape(s)}</li>' for c, s in zip(colours, series, strict=True)
    )
    lines = []
    for row in rows:
        drawn = "".join(
            f'<div class="bar" style="--zero:{zero:.2f}%"><i style="--c:{colour};'
            f'left:{zero + min(value, 0) / span * 100:.2f}%;width:{abs(value) / span * 100:.2f}%">'
            "</i></div>"
            for colour, value in zip(colours, row.values, strict=True)
            if value is not None
        )
        figures = "".join(
            f"<td>{'–' if value is None else format(value, '+.2f')}</td>" for value in row.values
        )
        lines.append(
            f'<tr><th scope="row" title="{escape(row.name)}"><bdi>{escape(row.name)}</bdi></th>'
            f'<td class="plot" aria-hidden="true">{drawn}</td>{figures}</tr>'
        )
    head = "".join(f'<th scope="col">{escape(f"{s}, {unit}")}</th>' for s in series)
    return (
        f'<ul class="legend">{legend}</ul>'
        '<div class="scroll tall" tabindex="0" role="region" aria-label="Per picture">'
        '<table class="bars"><thead><tr><th scope="col">Picture</th>'
        f'<th scope="col" class="plot"></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def slider(comparison: Comparison, *, budget_bytes: int) -> str:
    """The pictures of a comparison under a slider for mouse, touch and keyboard.

    Args:
        comparison: two or more pictures of one size.
        budget_bytes: what its pictures may take; they are made smaller until they fit.

    Raises:
        ValueError: fewer than two pictures, or of different sizes.
    """
    pictures = comparison.pictures
    if len(pictures) < 2 or len({p.pixels.shape for p in pictures}) != 1:
        raise ValueError("two or more pictures of one size wanted")
    width, height, encoded = _encode([p.pixels for p in pictures], budget_bytes)
    images = "".join(
        f'<img class="layer" data-label="{escape(p.label)}" draggable="false" '
        f'alt="{escape(f"{comparison.title}: {p.label}")}" width="{width}" height="{height}" '
        f'src="data:image/webp;base64,{data}">\n'
        for p, data in zip(pictures, encoded, strict=True)
    )
    choices = ""
    if len(pictures) > 2:
        choices = "".join(
            f'<div class="choice" role="group" aria-label="{side} picture"><span>{side}</span><div>'
            + "".join(
                f'<button type="button" data-side="{side.lower()}" data-index="{i}" '
                f'aria-pressed="false">{escape(p.label)}</button>'
                for i, p in enumerate(pictures)
            )
            + "</div></div>"
            for side in ("Left", "Right")
        )
    return (
        f'<figure class="compare" style="--w:{width};--h:{height}">'
        f"<figcaption><b>{escape(comparison.title)}</b>"
        f"<span>{escape(comparison.caption)}</span></figcaption>"
        f'<div class="stage"><div class="canvas" style="--at:50%">{images}'
        '<span class="tag on-left"></span><span class="tag on-right"></span>'
        '<div class="handle" role="slider" tabindex="0" aria-orientation="horizontal" '
        f'aria-label="{escape(f"Boundary between the pictures of {comparison.title}")}" '
        'aria-valuemin="0" aria-valuemax="100" aria-valuenow="50"><span class="grip">'
        '<svg viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="2" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
        '<path d="M7 5 2.5 10 7 15M13 5l4.5 5-4.5 5"/></svg></span></div></div></div>'
        f'<div class="controls">{choices}<span class="spacer"></span>'
        '<button type="button" class="zoom" aria-pressed="false">Actual size</button></div>'
        "</figure>"
    )


def _encode(pictures: Sequence[Pixels], budget_bytes: int) -> tuple[int, int, list[str]]:
    """Width, height and base64 WebP of pictures of one size, small enough for the budget."""
    encoded: list[bytes] = []
    width = height = 0
    for side_px, quality in _SIDES_AND_QUALITIES:
        encoded = []
        for pixels in pictures:
            image = PillowImage.fromarray(np.ascontiguousarray(pixels))
            image.thumbnail((side_px, side_px), PillowImage.Resampling.LANCZOS)
            width, height = image.size
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality, method=4)
            encoded.append(buffer.getvalue())
        if sum(map(len, encoded)) <= budget_bytes:
            break
    return width, height, [base64.b64encode(data).decode("ascii") for data in encoded]


def _cell_class(cell: str, best: bool) -> str:
    if best:
        return ' class="best"'
    return "" if cell else ' class="none"'


def _colour(place: int) -> str:
    return f"var(--m{place})" if place < 6 else f"hsl({place * 137 % 360} 45% 50%)"


@cache
def _part(name: str) -> str:
    return (files("deblurcli.evaluation") / "page_parts" / name).read_text(encoding="utf-8")
