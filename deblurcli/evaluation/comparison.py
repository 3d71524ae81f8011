"""Pages of before/after sliders: which pictures belong together, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deblurcli import __version__
from deblurcli.data.layouts import find_pictures
from deblurcli.errors import DeblurError, UsageError, sizes_differ
from deblurcli.evaluation.cases import read_image
from deblurcli.evaluation.html import PICTURES_BUDGET_BYTES, make_slider, write_page
from deblurcli.evaluation.metrics import LEAST_PX, Image, find_metrics


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
        sharp: the ground truth, likewise; PSNR (and SSIM, with the extra ``eval``) are given
            where it is there.
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
    metrics = [metric for metric in find_metrics() if metric.name in ("psnr_db", "ssim")]

    def caption(pictures: Sequence[Image]) -> str:
        """How far the pictures are from the last, where that is the truth; else their size."""
        height, width = pictures[0].shape[:2]
        if not truth or min(height, width) < LEAST_PX:
            return f"{width}x{height} px"
        *others, last = pictures
        figures = [[m.measure(picture, last) for m in metrics] for picture in others]
        return " → ".join(
            f"{psnr_db:.2f} dB" + "".join(f", SSIM {value:.4f}" for value in ssim)
            for psnr_db, *ssim in figures
        )

    figures = []
    for name, paths in groups:
        pictures = [read_image(path) for path in paths]
        for path, picture in zip(paths[1:], pictures[1:], strict=True):
            if picture.shape != pictures[0].shape:
                size, other = picture.shape[1::-1], pictures[0].shape[1::-1]
                raise sizes_differ(path, size, paths[0], other)
        labelled = list(zip(labels, pictures, strict=True))
        budget_bytes = PICTURES_BUDGET_BYTES // len(groups)
        figures.append(make_slider(name, caption(pictures), labelled, budget_bytes=budget_bytes))
    write_page(
        target,
        "compare.html",
        title=groups[0][0] if len(groups) == 1 else f"{before.name} and {after.name}",
        lead=["Drag across a picture, or move its handle with the arrow keys."],
        footer=[
            *(metric.convention for metric in metrics if truth),
            f"The pictures are compressed (WebP) copies. deblurcli {__version__}",
        ],
        overwrite=overwrite,
        figures=figures,
    )
    return len(groups)


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
    first, *others = (
        {path.relative_to(folder): path for path in find_pictures(folder)} for folder in sources
    )
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


def _result_name(name: Path) -> Path:
    return name.with_name(f"{name.stem}-sharp{name.suffix}")


def _bare(name: Path) -> Path:
    return name.with_suffix("")


# Which names belong together, the surest first: what to look for, among what of the others.
_RULES: tuple[tuple[Callable[[Path], Path], Callable[[Path], Path]], ...] = (
    (lambda name: name, lambda name: name),
    (_result_name, lambda name: name),
    (_bare, _bare),
    (lambda name: _bare(_result_name(name)), _bare),
)


def _partners(first: Mapping[Path, Path], other: Mapping[Path, Path]) -> dict[Path, Path]:
    """The name in `other` for each of `first` that has one; nothing is guessed among several."""
    partners: dict[Path, Path] = {}
    for wanted, offered in _RULES:
        taken = set(partners.values())
        theirs = Counter(offered(name) for name in other if name not in taken)
        of_key = {offered(name): name for name in other if name not in taken}
        lonely = [name for name in first if name not in partners]
        ours = Counter(wanted(name) for name in lonely)
        for name in lonely:
            if ours[wanted(name)] == theirs[wanted(name)] == 1:
                partners[name] = of_key[wanted(name)]
    return partners


def _refuse_lonely(name: Path, found: Mapping[Path, Path], there: Path) -> None:
    """Raises DeblurError for a picture without partner, unless it is ours beside its original."""
    originals = {_bare(_result_name(other)) for other in found}
    if _bare(name) not in originals:
        raise DeblurError(
            found[name], f"has no partner in {there}", "give folders with the same names"
        )
