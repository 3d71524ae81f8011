"""Pages of before/after sliders: which pictures or videos belong together, what is said of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted, ns

from deblurcli import __version__
from deblurcli.errors import (
    DeblurError,
    NothingToDoError,
    UsageError,
    already_exists,
    sizes_differ,
)
from deblurcli.evaluation.cases import read_image
from deblurcli.evaluation.html import (
    MAX_EMBEDDED_BYTES,
    Layer,
    PageFolder,
    Slider,
    data_uri,
    embed,
    embed_reduced,
    page_folder,
    write_page,
)
from deblurcli.evaluation.metrics import SSIM_MIN_PX, Image, Metric, find_metrics
from deblurcli.io.media import SUFFIXES, kind_of
from deblurcli.io.videos import probe, restore_video

_PLAYED = {"h264", "vp8", "vp9", "av1"}
_MIME_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
}
"""The containers and codecs that all browsers play; other videos are encoded anew."""


@dataclass(frozen=True)
class WrittenPage:
    """What came out: the page, its sliders, and where its pictures lie if not within it.

    Attributes:
        size_bytes: of the page and the folder.
        folder: beside the page; None where the page holds all itself.
        reduced: some pictures are smaller than they were.
    """

    path: Path
    sliders: int
    size_bytes: int
    folder: Path | None = None
    reduced: bool = False


@dataclass(frozen=True)
class _Group:
    """Files that belong together, under the name of the first."""

    name: str
    paths: tuple[Path, ...]

    @property
    def of_videos(self) -> bool:
        return kind_of(self.paths[0]) == "video"


def write_comparison(
    target: Path,
    before: Path,
    after: Path,
    sharp: Path | None = None,
    *,
    labels: Sequence[str] = (),
    one_file: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> WrittenPage:
    """Writes a page of before/after sliders for two pictures or videos, or two folders of them.

    Files of folders belong together when their paths below the folders are the same, but for
    the suffix where there is no doubt; ``photo-sharp.jpg`` also belongs to ``photo.jpg``, and is
    left out where it lies beside it and has no partner.

    Everything can be looked at 1:1. Where it takes more than `MAX_EMBEDDED_BYTES`, it lies in a
    folder beside the page, ``page_files``.

    Args:
        target: the HTML file.
        before, after: two files or two folders.
        sharp: the ground truth, likewise; PSNR (and SSIM, with the extra ``eval``) are given
            where it is there.
        labels: other names than Before, After and Sharp, one for each source; no figures are
            given then, because the third need not be the truth.
        one_file: never a folder; pictures are made smaller instead, which the page says.
        overwrite: replace the page (and its folder) if it exists.
        on_progress: is told how many of how many sliders are made.

    Raises:
        DeblurError: files without partner, of different sizes, or unreadable; the page or its
            folder exists.
        UsageError: as many labels as sources wanted; videos too large for one file.
    """
    if target.exists() and not overwrite:  # said now, not after all the work
        raise already_exists(target)
    sources = [before, after] + ([sharp] if sharp is not None else [])
    groups = _match(sources)
    if labels and len(labels) != len(sources):
        raise UsageError("--labels", f"{len(sources)} wanted", "give one for each source")
    metrics = [m for m in find_metrics() if m.name in ("psnr_db", "ssim")]
    metrics = metrics if sharp is not None and not labels else []
    labels = labels or ("Before", "After", "Sharp")[: len(sources)]
    tell = on_progress or (lambda done, total: None)

    def write(sliders: Sequence[Slider], notes: Sequence[str]) -> None:
        write_page(
            target,
            "compare.html",
            title=groups[0].name if len(groups) == 1 else f"{before.name} and {after.name}",
            lead=["Drag across a picture, or move its handle with the arrow keys.", *notes],
            footer=[
                *(metric.convention for metric in metrics),
                f"Pictures are compressed (WebP) copies. deblurcli {__version__}",
            ],
            overwrite=overwrite,
            beside=bool(notes),
            figures=sliders,
        )

    sliders: list[Slider] = []
    left_bytes = MAX_EMBEDDED_BYTES
    for group in groups:
        slider = _embed_group(group, labels, metrics, left_bytes)
        if slider is None:
            break
        left_bytes -= sum(len(layer.source) * 3 // 4 for layer in slider.layers)
        sliders.append(slider)
        tell(len(sliders), len(groups))
    if len(sliders) == len(groups):
        write(sliders, [])
        return WrittenPage(target, len(groups), target.stat().st_size)

    sliders = []
    if one_file:
        for group in groups:
            if group.of_videos:
                size = f"more than {MAX_EMBEDDED_BYTES >> 20} MiB"
                raise UsageError(group.paths[0], size, "leave out --one-file")
            pictures = list(zip(labels, _read(group), strict=True))
            max_bytes = MAX_EMBEDDED_BYTES // len(groups)
            caption = _caption([image for _, image in pictures], metrics)
            sliders.append(embed_reduced(group.name, caption, pictures, max_bytes=max_bytes))
            tell(len(sliders), len(groups))
        write(sliders, [])
        return WrittenPage(target, len(groups), target.stat().st_size, reduced=True)

    with page_folder(target, overwrite=overwrite) as folder:
        for group in groups:
            sliders.append(_place_group(group, labels, metrics, folder))
            tell(len(sliders), len(groups))
        write(sliders, [f"The pictures lie in the folder {folder.name}: keep it beside this page."])
        size_bytes = sum(path.stat().st_size for path in folder.path.iterdir())
    size_bytes += target.stat().st_size
    return WrittenPage(target, len(groups), size_bytes, target.with_name(folder.name))


def _embed_group(
    group: _Group, labels: Sequence[str], metrics: Sequence[Metric], max_bytes: int
) -> Slider | None:
    if not group.of_videos:
        images = _read(group)
        pictures = list(zip(labels, images, strict=True))
        return embed(group.name, _caption(images, metrics), pictures, max_bytes=max_bytes)
    if not all(_plays(path) for path in group.paths):
        return None
    if sum(path.stat().st_size for path in group.paths) > max_bytes:
        return None
    uris = (data_uri(_MIME_TYPES[p.suffix.lower()], p.read_bytes()) for p in group.paths)
    layers = (Layer(label, uri) for label, uri in zip(labels, uris, strict=True))
    return _video_slider(group, tuple(layers))


def _place_group(
    group: _Group, labels: Sequence[str], metrics: Sequence[Metric], folder: PageFolder
) -> Slider:
    if not group.of_videos:
        images = _read(group)
        pictures = list(zip(labels, images, strict=True))
        return folder.place(group.name, _caption(images, metrics), pictures)
    layers = []
    for label, source in zip(labels, group.paths, strict=True):
        if _plays(source):
            path, address = folder.add(source.suffix.lower())
            shutil.copyfile(source, path)
        else:
            path, address = folder.add(".mp4")
            restore_video(source, path, lambda frame: frame, codec="h264", strip=True)
        layers.append(Layer(label, address))
    return _video_slider(group, tuple(layers))


def _video_slider(group: _Group, layers: tuple[Layer, ...]) -> Slider:
    info = probe(group.paths[0])
    fps = float(info.fps) if info.fps else 25.0
    length = "" if info.seconds is None else f", {info.seconds:.1f} s"
    caption = f"{info.width}x{info.height} px, {fps:.4g} fps{length}"
    return Slider(group.name, caption, info.width, info.height, layers, fps)


def _plays(path: Path) -> bool:
    return path.suffix.lower() in _MIME_TYPES and probe(path).codec in _PLAYED


def _read(group: _Group) -> list[Image]:
    images = [read_image(path) for path in group.paths]
    for path, image in zip(group.paths, images, strict=True):
        if image.shape != images[0].shape:
            size, other = image.shape[1::-1], images[0].shape[1::-1]
            raise sizes_differ(path, size, group.paths[0], other)
    return images


def _caption(images: Sequence[Image], metrics: Sequence[Metric]) -> str:
    """The size, and how far the pictures are from the last where that is the truth."""
    height, width = images[0].shape[:2]
    caption = f"{width}x{height} px"
    if not metrics or min(height, width) < SSIM_MIN_PX:
        return caption
    *others, truth = images
    figures = [[metric.measure(image, truth) for metric in metrics] for image in others]
    return f"{caption} · " + " → ".join(
        f"{psnr_db:.2f} dB" + "".join(f", SSIM {value:.4f}" for value in ssim)
        for psnr_db, *ssim in figures
    )


def _match(sources: Sequence[Path]) -> list[_Group]:
    """The files that belong together, under their names, in the order of the first source."""
    for source in sources:
        if not source.exists():
            raise DeblurError(source, "no such file or folder", "give pictures or folders of them")
    folders = [source.is_dir() for source in sources]
    if not any(folders):
        return [_check(_Group(sources[0].name, tuple(sources)))]
    if not all(folders):
        raise DeblurError(
            sources[folders.index(False)],
            f"a file, but {sources[folders.index(True)]} is a folder",
            "give files only, or folders only",
        )
    first, *others = map(_find, sources)
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
        groups.append(_check(_Group(label.as_posix(), (path, *matched))))
    for other, found in zip(others, partners, strict=True):
        for name in other.keys() - set(found.values()):
            _refuse_lonely(name, other, sources[0])
    return groups


def _check(group: _Group) -> _Group:
    """Raises DeblurError where a video belongs to a picture."""
    for path in group.paths:
        if (kind_of(path) == "video") != group.of_videos:
            raise DeblurError(path, f"is not of the kind of {group.paths[0]}", "give two of a kind")
    return group


def _find(folder: Path) -> dict[Path, Path]:
    """The pictures and videos below a folder by their path within it, in natural order."""
    found = {
        path.relative_to(folder): path
        for path in natsorted(folder.rglob("*"), alg=ns.PATH)
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    }
    if not found:
        raise NothingToDoError(folder, "no pictures or videos in it", "give folders of them")
    return found


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
