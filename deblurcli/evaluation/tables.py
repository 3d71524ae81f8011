"""The summary of an evaluation as tables, for a page, a terminal, or a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deblurcli.evaluation import metrics
from deblurcli.evaluation.evaluate import Method
from deblurcli.evaluation.scores import Summary

CONVENTIONS = (
    metrics.PSNR_CONVENTION,
    metrics.SSIM_CONVENTION,
    f"{metrics.SSIM_MATLAB_CONVENTION} (the 2017 paper's table)",
    "Sharpness: 1 - blur effect (Crété 2007), without a reference: noise and halos raise it, too",
    "Seconds: median wall-clock per picture, without reading and writing; GMAC: for 256x256 pixels",
)
KOEHLER_CONVENTION = (
    "Köhler: PSNR by the benchmark's script (grey, best of the sharp frames after scaling and "
    "shifting); SSIM on the overlap with that frame; its multi-scale SSIM is not computed"
)


@dataclass(frozen=True)
class Column:
    """A column of the summary table: where its figure comes from and how it is written."""

    title: str
    figure: str
    form: str
    higher_is_better: bool | None = None


COLUMNS = (
    Column("PSNR dB", "psnr_db", ".2f", True),
    Column("SSIM", "ssim", ".4f", True),
    Column("SSIM (MATLAB RGB)", "ssim_matlab_rgb", ".4f", True),
    Column("Sharpness", "sharpness", ".3f"),
    Column("s / picture", "seconds", ".3g", False),
    Column("Peak MiB", "peak_mib", ".0f", False),
    Column("M parameters", "parameters_m", ".3g"),
    Column("GMAC", "gmacs", ".4g"),
    Column("Sharp in, dB", "harm_psnr_db", ".2f", True),
)


@dataclass(frozen=True)
class Table:
    """The summary of one set as text.

    Attributes:
        set_name, pictures: the set, and how many pictures were measured.
        columns: the titles; the first is that of the methods.
        rows: each method's name and its cells; "" where a method has no such figure.
        best: (row, column) of the best cells, where more than one method has a figure.
    """

    set_name: str
    pictures: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    best: frozenset[tuple[int, int]]


def tabulate(summaries: Sequence[Summary], methods: Sequence[Method]) -> list[Table]:
    """One table for each set; columns that no method fills are left out."""
    by_name = {method.name: method for method in methods}
    tables = []
    for set_name in dict.fromkeys(s.set_name for s in summaries):
        group = [s for s in summaries if s.set_name == set_name]
        figures = [
            [_figure(s, by_name.get(s.method), column.figure) for s in group] for column in COLUMNS
        ]
        used = [i for i, values in enumerate(figures) if any(v is not None for v in values)]
        rows = tuple(
            (s.method, tuple(_format(figures[i][y], COLUMNS[i].form) for i in used))
            for y, s in enumerate(group)
        )
        best = frozenset((y, x) for x, i in enumerate(used) for y in _best(figures[i], COLUMNS[i]))
        columns = ("Method", *(COLUMNS[i].title for i in used))
        tables.append(Table(set_name, max(s.pictures for s in group), columns, rows, best))
    return tables


def _figure(summary: Summary, method: Method | None, name: str) -> float | None:
    if name == "parameters_m":
        return method.parameters / 1e6 if method and method.parameters else None
    if name == "gmacs":
        return method.gmacs if method else None
    value: float | None = getattr(summary, name)
    return value


def _format(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _best(values: Sequence[float | None], column: Column) -> list[int]:
    known = [v for v in values if v is not None]
    if column.higher_is_better is None or len(known) < 2:
        return []
    wanted = max(known) if column.higher_is_better else min(known)
    return [y for y, v in enumerate(values) if v == wanted]


def as_text(tables: Iterable[Table]) -> str:
    """Tables for a terminal, columns aligned."""
    blocks = []
    for table in tables:
        lines = [table.columns, *((name, *(c or "-" for c in cells)) for name, cells in table.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if x == 0 else cell.rjust(width)
                for x, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        blocks.append("\n".join([f"{table.set_name} ({table.pictures})", *text]))
    return "\n\n".join(blocks)


def as_markdown(tables: Iterable[Table]) -> str:
    """Tables for a document, the best of each column in bold."""
    blocks = []
    for table in tables:
        lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
        for y, (name, cells) in enumerate(table.rows):
            marked = (f"**{c}**" if (y, x) in table.best else c for x, c in enumerate(cells))
            lines.append("| " + " | ".join([name, *marked]) + " |")
        noun = "picture" if table.pictures == 1 else "pictures"
        title = f"### {table.set_name}, {table.pictures} {noun}"
        blocks.append("\n".join([title, "", *lines]))
    return "\n\n".join(blocks)
