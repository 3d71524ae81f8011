"""What came out of an evaluation, for people: tables as text or Markdown, and a page with bars for
each picture and sliders of the best and worst."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deblurcli import __version__
from deblurcli.evaluation.cases import Case, read_image
from deblurcli.evaluation.evaluate import BLURRED, Method
from deblurcli.evaluation.html import MAX_EMBEDDED_BYTES, Page, Slider, new_page
from deblurcli.evaluation.metrics import Column, Metric
from deblurcli.evaluation.scores import Score, Summary

_EXAMPLES = 3


@dataclass(frozen=True)
class Table:
    """The summary of one set as text."""

    set_name: str
    pictures: int  # how many were measured
    columns: tuple[str, ...]  # the titles; the first is that of the methods
    # Each method's name and its cells; "" where a method has no such figure.
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    # (row, column) of the best cells, where more than one method has a figure.
    best: frozenset[tuple[int, int]]

    @property
    def title(self) -> str:
        return f"{self.set_name}, {self.pictures} picture{'s' if self.pictures != 1 else ''}"


def tabulate(
    summaries: Sequence[Summary], methods: Sequence[Method], metrics: Sequence[Metric]
) -> list[Table]:
    """One table for each set; columns that no method fills are left out."""
    columns = [
        *metrics,
        Column("mssim", "MSSIM", ".4f", True),
        Column("seconds", "s / picture", ".3g", False),
        Column("peak_mib", "Peak MiB", ".0f", False),
        Column("parameters_m", "M parameters", ".3g", None),
        Column("gmacs", "GMACs", ".4g", None),
        Column("identity_psnr_db", "Sharp in, dB", ".2f", True),
    ]
    of_method = {
        m.name: {"parameters_m": m.parameters / 1e6 if m.parameters else None, "gmacs": m.gmacs}
        for m in methods
    }
    tables = []
    for set_name in dict.fromkeys(s.set_name for s in summaries):
        group = [s for s in summaries if s.set_name == set_name]
        figures = [{**of_method.get(s.method, {}), **s.figures} for s in group]
        used = [c for c in columns if any(row.get(c.name) is not None for row in figures)]
        cells, best = [], set()
        for x, column in enumerate(used):
            values = [row.get(column.name) for row in figures]
            cells.append(["" if v is None else format(v, column.form) for v in values])
            known = [v for v in values if v is not None]
            if column.higher_is_better is not None and len(known) > 1:
                wanted = max(known) if column.higher_is_better else min(known)
                best |= {(y, x) for y, v in enumerate(values) if v == wanted}
        pictures = max(s.pictures for s in group)
        # Means of fewer pictures can't be compared with the others.
        names = (
            s.method + (f" ({s.pictures} of {pictures})" if s.pictures < pictures else "")
            for s in group
        )
        rows = zip(names, zip(*cells, strict=True), strict=True)
        titles = ("Method", *(column.title for column in used))
        tables.append(Table(set_name, pictures, titles, tuple(rows), frozenset(best)))
    return tables


def conventions(metrics: Sequence[Metric], cases: Iterable[Case]) -> list[str]:
    """What exactly the figures of the tables are, in lines."""
    return [
        *(metric.convention for metric in metrics),
        *dict.fromkeys(case.convention for case in cases if case.convention),
        "Seconds: median wall-clock per picture, without reading and writing; "
        "GMACs: for 256x256 pixels",
    ]


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
            lines.append("| " + " | ".join([name.replace("|", r"\|"), *marked]) + " |")
        blocks.append("\n".join([f"### {table.title}", "", *lines]))
    return "\n\n".join(blocks)


def write_report(
    target: Path,
    scores: Sequence[Score],
    summaries: Sequence[Summary],
    methods: Sequence[Method],
    cases: Sequence[Case],
    metrics: Sequence[Metric],
    *,
    overwrite: bool = False,
) -> None:
    """Writes the page of an evaluation. The pictures that it shows are restored once more.

    Gains are measured from the scores of the blurred input; the first method that restores orders
    the pictures. Raises DeblurError where the file exists, or a picture can't be read any more.
    """
    restoring = [method for method in methods if method != BLURRED]
    tables = tabulate(summaries, methods, metrics)
    max_bytes = MAX_EMBEDDED_BYTES // max(1, len(tables) * 2 * _EXAMPLES)

    def slider(page: Page, case: Case, of_case: Sequence[Score]) -> Slider:
        blurred = case.read()
        pictures = [("Blurred", blurred)]
        pictures += [(m.name, m.restore(case, blurred)) for m in restoring if m.covers(case)]
        frame = next((int(s.figures["frame"]) for s in of_case if "frame" in s.figures), 1)
        pictures.append(("Sharp", read_image(case.sharp[frame - 1])))
        caption = " · ".join(f"{s.method} {s.psnr_db:.2f} dB" for s in of_case)
        return page.place_reduced(case.name, caption, pictures, max_bytes)

    with new_page(target, overwrite=overwrite, is_one_file=True) as page:
        sections = []
        for table in tables:
            of_set = [score for score in scores if score.set_name == table.set_name]
            psnr_db = {(score.image, score.method): score.psnr_db for score in of_set}
            gains = {}
            for image in dict.fromkeys(score.image for score in of_set):
                base = psnr_db.get((image, BLURRED.name), math.nan)
                values = [psnr_db.get((image, m.name), math.nan) - base for m in restoring]
                if any(map(math.isfinite, values)):
                    gains[image] = tuple(v if math.isfinite(v) else None for v in values)
            names = [image for image, values in gains.items() if values[0] is not None]
            names.sort(key=lambda image: gains[image][0] or 0.0, reverse=True)
            gains = {name: gains[name] for name in dict.fromkeys([*names, *gains])}
            count = min(_EXAMPLES, (len(names) + 1) // 2)
            worst = names[max(count, len(names) - _EXAMPLES) :][::-1]
            by_name = {case.name: case for case in cases if case.set_name == table.set_name}
            best_sliders, worst_sliders = (
                [slider(page, by_name[n], [s for s in of_set if s.image == n]) for n in shown]
                for shown in (names[:count], worst)
            )
            section = {"table": table, "gains": gains}
            sections.append({**section, "best": best_sliders, "worst": worst_sliders})
        page.write(
            "report.html",
            title="Motion deblurring, measured",
            lead=[
                f"{', '.join(m.name for m in restoring) or 'The input alone'} on "
                f"{', '.join(table.set_name for table in tables)}. "
                "Drag across a picture, or move its handle with the arrow keys."
            ],
            footer=[
                *conventions(metrics, cases),
                "Figures are of the original pictures; those embedded here are compressed (WebP).",
                f"deblurcli {__version__}",
            ],
            sets=sections,
            methods=[method.name for method in restoring],
        )
