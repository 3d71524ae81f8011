"""Pages and tables to look at: the report of an evaluation, and before/after sliders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from deblurcli import __version__
from deblurcli.data.layouts import find_pictures
from deblurcli.errors import DeblurError, UsageError
from deblurcli.evaluation import html, metrics
from deblurcli.evaluation.evaluate import BLURRED, Case, Image, Method, read_image
from deblurcli.evaluation.scores import Score, Summary
from deblurcli.evaluation.tables import CONVENTIONS, KOEHLER_CONVENTION, tabulate

_EXAMPLES = 3


def write_report(
    target: Path,
    scores: Sequence[Score],
    summaries: Sequence[Summary],
    methods: Sequence[Method],
    cases: Sequence[Case],
    *,
    overwrite: bool = False,
) -> None:
    """Writes the page of an evaluation: tables, bars for each picture, best and worst cases.

    The pictures that it shows are restored once more.

    Args:
        target: the HTML file.
        scores: every score; those of the blurred input are what gains are measured from.
        summaries: their means.
        methods: those that were measured; the first that restores orders the pictures.
        cases: the pictures that the scores are of.
        overwrite: replace the file if it exists.

    Raises:
        DeblurError: the file exists, or a picture can't be read any more.
    """
    restoring = [m for m in methods if m.restorer is not None]
    sets = list(dict.fromkeys(s.set_name for s in summaries))
    shown = max(1, len(sets) * 2 * _EXAMPLES)
    budget_bytes = html.PICTURES_BUDGET_BYTES // shown

    def body() -> Iterator[str]:
        for table in tabulate(summaries, methods):
            noun = "picture" if table.pictures == 1 else "pictures"
            yield html.heading(f"{table.set_name}, {table.pictures} {noun}")
            yield html.table(table.columns, table.rows, table.best)
            of_set = [s for s in scores if s.set_name == table.set_name]
            gains = _gains(of_set, [m.name for m in restoring])
            if gains and restoring:
                yield html.heading("Gain in PSNR over the blurred input", 3)
                yield html.bars(gains, [m.name for m in restoring], "dB")
            best, worst = _extremes(gains)
            for title, names in (("Best cases", best), ("Worst cases", worst)):
                if names:
                    yield html.heading(title, 3)
                for name in names:
                    case = next(c for c in cases if (c.set_name, c.name) == (table.set_name, name))
                    comparison = _comparison(case, restoring, of_set)
                    yield html.slider(comparison, budget_bytes=budget_bytes)

    koehler = [KOEHLER_CONVENTION] if any(case.shaken for case in cases) else []
    html.write_page(
        target,
        title="Motion deblurring, measured",
        lead=[
            f"{', '.join(m.name for m in restoring) or 'The input alone'} on {', '.join(sets)}. "
            "Drag across a picture, or move its handle with the arrow keys."
        ],
        body=body(),
        footer=[
            *CONVENTIONS,
            *koehler,
            "The figures are of the original pictures; those embedded here are compressed (WebP).",
            f"deblurcli {__version__}",
        ],
        overwrite=overwrite,
    )


def _gains(scores: Sequence[Score], methods: Sequence[str]) -> list[html.Bar]:
    """What each method gained on each picture, in dB; the first method's best gain first."""
    psnr_db = {(s.image, s.method): s.psnr_db for s in scores}
    rows = []
    for image in dict.fromkeys(s.image for s in scores):
        base = psnr_db.get((image, BLURRED.name))
        values = tuple(_difference(psnr_db.get((image, m)), base) for m in methods)
        if any(v is not None for v in values):
            rows.append(html.Bar(image, values))
    return sorted(rows, key=lambda row: -(row.values[0] if row.values[0] is not None else -1e9))


def _difference(value: float | None, base: float | None) -> float | None:
    if value is None or base is None:
        return None
    difference = value - base
    return float(difference) if np.isfinite(difference) else None


def _extremes(gains: Sequence[html.Bar]) -> tuple[list[str], list[str]]:
    """The pictures with the largest and, worst first, the smallest gains, none in both."""
    names = [bar.name for bar in gains if bar.values[0] is not None]
    count = min(_EXAMPLES, (len(names) + 1) // 2)
    worst = names[max(count, len(names) - _EXAMPLES) :]
    return names[:count], worst[::-1]


def _comparison(case: Case, methods: Sequence[Method], scores: Sequence[Score]) -> html.Comparison:
    psnr_db = {s.method: s.psnr_db for s in scores if s.image == case.name}
    frame = next((s.frame for s in scores if s.image == case.name and s.frame), 1)
    blurred = read_image(case.blurred)
    pictures = [html.Picture("Blurred", blurred)]
    pictures += [
        html.Picture(m.name, np.asarray(m.restorer.restore(blurred), dtype=np.uint8))
        for m in methods
        if m.restorer is not None
    ]
    pictures.append(html.Picture("Sharp", read_image(case.sharp[frame - 1])))
    figures = [f"{name} {value:.2f} dB" for name, value in psnr_db.items()]
    return html.Comparison(case.name, " · ".join(figures), tuple(pictures))


def write_comparison(
    target: Path,
    before: Path,
    after: Path,
    sharp: Path | None = None,
    *,
    labels: Sequence[str] = (),
    overwrite: bool = False,
) -> int:
    """Writes a page of before/after sliders for two pictures, or two folders of them.

    Pictures of folders belong together when their paths below the folders are the same, but for
    the suffix where there is no doubt; ``photo-sharp.jpg`` also belongs to ``photo.jpg``, and is
    left out where it lies beside it and has no partner.

    Args:
        target: the HTML file.
        before, after: two files or two folders.
        sharp: the ground truth, likewise; PSNR and SSIM are given where it is there.
        labels: other names than Before, After and Sharp, one for each source; no figures are
            given then, because the third need not be the truth.
        overwrite: replace the file if it exists.

    Returns:
        The number of sliders.

    Raises:
        DeblurError: pictures without partner, of different sizes, or unreadable; the page
            exists.
        UsageError: as many labels as sources wanted.
    """
    sources = [before, after] + ([sharp] if sharp is not None else [])
    groups = _match(sources)
    if labels and len(labels) != len(sources):
        raise UsageError("--labels", f"{len(sources)} wanted", "give one for each source")
    truth = sharp is not None and not labels
    labels = labels or ("Before", "After", "Sharp")[: len(sources)]

    def body() -> Iterator[str]:
        for name, paths in groups:
            pictures = [read_image(path) for path in paths]
            for path, picture in zip(paths[1:], pictures[1:], strict=True):
                if picture.shape != pictures[0].shape:
                    raise DeblurError(
                        path,
                        f"{_size(picture)} pixels, but {paths[0]} has {_size(pictures[0])}",
                        "give pictures of one size",
                    )
            comparison = html.Comparison(
                name,
                _caption(pictures, truth=truth),
                tuple(html.Picture(*pair) for pair in zip(labels, pictures, strict=True)),
            )
            yield html.slider(comparison, budget_bytes=html.PICTURES_BUDGET_BYTES // len(groups))

    html.write_page(
        target,
        title=groups[0][0] if len(groups) == 1 else f"{before.name} and {after.name}",
        lead=["Drag across a picture, or move its handle with the arrow keys."],
        body=body(),
        footer=[
            *(CONVENTIONS[:2] if truth else ()),
            f"The pictures are compressed (WebP) copies. deblurcli {__version__}",
        ],
        overwrite=overwrite,
    )
    return len(groups)


def _caption(pictures: Sequence[Image], *, truth: bool) -> str:
    """How far the pictures are from the last, where that is the truth; else their size."""
    if not truth or min(pictures[0].shape[:2]) < 11:
        return f"{_size(pictures[0])} px"
    *others, sharp = pictures
    return " → ".join(
        f"{metrics.psnr(picture, sharp):.2f} dB, SSIM {metrics.ssim(picture, sharp):.4f}"
        for picture in others
    )


def _size(picture: Image) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _match(sources: Sequence[Path]) -> list[tuple[str, list[Path]]]:
    """The pictures that belong together, under their names, in the order of the first source."""
    for source in sources:
        if not source.exists():
            raise DeblurError(source, "no such file or folder", "give pictures or folders of them")
    folders = [source.is_dir() for source in sources]
    if not any(folders):
        return [(sources[0].name, list(sources))]
    if not all(folders):
        raise DeblurError(
            sources[folders.index(False)],
            f"a file, but {sources[folders.index(True)]} is a folder",
            "give files only, or folders only",
        )
    first, *others = (_by_name(source) for source in sources)
    partners = [_partners(first, other) for other in others]
    bare = Counter(name.with_suffix("") for name in first)
    groups = []
    for name, path in first.items():
        lacking = (s for s, found in zip(sources[1:], partners, strict=True) if name not in found)
        if folder := next(lacking, None):
            _refuse_lonely(name, first, folder)
            continue
        label = name if bare[name.with_suffix("")] > 1 else name.with_suffix("")
        matched = (other[found[name]] for other, found in zip(others, partners, strict=True))
        groups.append((label.as_posix(), [path, *matched]))
    for other, found in zip(others, partners, strict=True):
        for name in other.keys() - set(found.values()):
            _refuse_lonely(name, other, sources[0])
    return groups


def _by_name(folder: Path) -> dict[PurePath, Path]:
    return {path.relative_to(folder): path for path in find_pictures(folder)}


def _result_name(name: PurePath) -> PurePath:
    return name.with_name(f"{name.stem}-sharp{name.suffix}")


def _bare(name: PurePath) -> PurePath:
    return name.with_suffix("")


# Which names belong together, the surest first: what to look for, among what of the others.
_KINSHIPS: tuple[tuple[Callable[[PurePath], PurePath], Callable[[PurePath], PurePath]], ...] = (
    (lambda name: name, lambda name: name),
    (_result_name, lambda name: name),
    (_bare, _bare),
    (lambda name: _bare(_result_name(name)), _bare),
)


def _partners(
    first: Mapping[PurePath, Path], other: Mapping[PurePath, Path]
) -> dict[PurePath, PurePath]:
    """The name in `other` for each of `first` that has one; nothing is guessed among several."""
    partners: dict[PurePath, PurePath] = {}
    for wanted, offered in _KINSHIPS:
        taken = set(partners.values())
        theirs = Counter(offered(name) for name in other if name not in taken)
        of_key = {offered(name): name for name in other if name not in taken}
        lonely = [name for name in first if name not in partners]
        ours = Counter(wanted(name) for name in lonely)
        for name in lonely:
            if ours[wanted(name)] == theirs[wanted(name)] == 1:
                partners[name] = of_key[wanted(name)]
    return partners


def _refuse_lonely(name: PurePath, found: Mapping[PurePath, Path], there: Path) -> None:
    """Raises DeblurError for a picture without partner, unless it is ours beside its original."""
    originals = {_bare(_result_name(other)) for other in found}
    if _bare(name) not in originals:
        raise DeblurError(
            found[name], f"has no partner in {there}", "give folders with the same names"
        )
