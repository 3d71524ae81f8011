"""The summary of an evaluation as tables, for a page, a terminal, or a document."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deblurcli.evaluation.cases import Case
from deblurcli.evaluation.evaluate import Method
from deblurcli.evaluation.metrics import Column, Metric
from deblurcli.evaluation.scores import Summary


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
