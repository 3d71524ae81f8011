"""The page of an evaluation: tables, bars for each picture, best and worst cases under sliders."""

import math
from collections.abc import Sequence
from pathlib import Path

from deblurcli import __version__
from deblurcli.evaluation.cases import Case, read_image
from deblurcli.evaluation.evaluate import BLURRED, Method
from deblurcli.evaluation.html import MAX_EMBEDDED_BYTES, Bar, Slider, embed, write_page
from deblurcli.evaluation.metrics import Metric
from deblurcli.evaluation.scores import Score, Summary
from deblurcli.evaluation.tables import conventions, tabulate

_EXAMPLES = 3


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

    def slider(case: Case, of_case: Sequence[Score]) -> Slider:
        blurred = case.read()
        pictures = [("Blurred", blurred)]
        pictures += [(m.name, m.restore(case, blurred)) for m in restoring if m.covers(case)]
        frame = next((int(s.figures["frame"]) for s in of_case if "frame" in s.figures), 1)
        pictures.append(("Sharp", read_image(case.sharp[frame - 1])))
        caption = " · ".join(f"{s.method} {s.psnr_db:.2f} dB" for s in of_case)
        return embed(case.name, caption, pictures, max_bytes=max_bytes)

    sections = []
    for table in tables:
        of_set = [score for score in scores if score.set_name == table.set_name]
        psnr_db = {(score.image, score.method): score.psnr_db for score in of_set}
        gains = []
        for image in dict.fromkeys(score.image for score in of_set):
            base = psnr_db.get((image, BLURRED.name), math.nan)
            values = [psnr_db.get((image, m.name), math.nan) - base for m in restoring]
            finite = tuple(value if math.isfinite(value) else None for value in values)
            if any(value is not None for value in finite):
                gains.append(Bar(image, finite))
        # None sorts behind everything.
        gains.sort(key=lambda bar: -math.inf if bar.values[0] is None else bar.values[0])
        gains.reverse()
        names = [bar.name for bar in gains if bar.values[0] is not None]
        count = min(_EXAMPLES, (len(names) + 1) // 2)
        worst = names[max(count, len(names) - _EXAMPLES) :][::-1]
        by_name = {case.name: case for case in cases if case.set_name == table.set_name}
        best_sliders, worst_sliders = (
            [slider(by_name[n], [s for s in of_set if s.image == n]) for n in shown]
            for shown in (names[:count], worst)
        )
        section = {"table": table, "gains": gains, "best": best_sliders, "worst": worst_sliders}
        sections.append(section)

    write_page(
        target,
        "report.html",
        title="Motion deblurring, measured",
        lead=[
            f"{', '.join(m.name for m in restoring) or 'The input alone'} on "
            f"{', '.join(table.set_name for table in tables)}. "
            "Drag across a picture, or move its handle with the arrow keys."
        ],
        footer=[
            *conventions(metrics, cases),
            "The figures are of the original pictures; those embedded here are compressed (WebP).",
            f"deblurcli {__version__}",
        ],
        overwrite=overwrite,
        sets=sections,
        methods=[method.name for method in restoring],
    )
