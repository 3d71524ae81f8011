"""Pages of before/after sliders: which pictures or videos belong together, what is said of them."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted, ns

from deblurcli import __version__
from deblurcli.deblurrer import Image
from deblurcli.errors import DeblurError, NothingToDoError, UsageError, sizes_differ
from deblurcli.evaluation.cases import read_image
from deblurcli.evaluation.html import (
    MAX_EMBEDDED_BYTES,
    MIME_TYPES,
    Layer,
    PageFolder,
    Slider,
    embed,
    page_folder,
    write_page,
)
from deblurcli.evaluation.metrics import SSIM_MIN_PX, Metric, find_metrics
from deblurcli.io.media import SUFFIXES, kind_of
from deblurcli.io.photos import to_uint8
from deblurcli.io.videos import probe, restore_video
from deblurcli.io.videos.pixels import pixels_of
from deblurcli.io.videos.reading import VideoReader
from deblurcli.io.videos.steadying import Restore

_PLAYED = ("h264", "vp8", "vp9", "av1")  # by all browsers; other videos are encoded anew


@dataclass(frozen=True)
class WrittenPage:
    """What came out."""

    path: Path
    sliders: int  # their number
    size_bytes: int  # of the page and the folder
    folder: Path | None = None  # with the pictures, beside the page; else the page holds all itself
    reduced: bool = False  # some pictures are smaller than they were


@dataclass(frozen=True)
class Group:
    """Files that belong together, under the name of the first. Raises DeblurError for pictures and
    videos in one."""

    name: str
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path in self.paths:
            if (kind_of(path) == "video") != self.of_videos:
                reason = f"is not of the kind of {self.paths[0]}"
                raise DeblurError(path, reason, "give two of a kind")

    @property
    def of_videos(self) -> bool:
        return kind_of(self.paths[0]) == "video"

    def read(self, metrics: Sequence[Metric]) -> tuple[list[Image], str]:
        """The pictures, and what to say of them: their size and, if `metrics` are given, how far
        they are from the last, the truth. Raises DeblurError if they are of different sizes."""
        images = [read_image(path) for path in self.paths]
        height, width = images[0].shape[:2]
        for path, image in zip(self.paths, images, strict=True):
            if image.shape != images[0].shape:
                raise sizes_differ(path, image.shape[1::-1], self.paths[0], (width, height))
        caption = size_of(images[0])
        if metrics and min(height, width) >= SSIM_MIN_PX:
            figures = []
            for image in images[:-1]:
                psnr_db, *ssim = (metric.measure(image, images[-1]) for metric in metrics)
                figures.append(f"{psnr_db:.2f} dB" + "".join(f", SSIM {s:.4f}" for s in ssim))
            caption += f" · {' → '.join(figures)}"
        return images, caption

    def reduce(self, labels: Sequence[str], metrics: Sequence[Metric], groups: int) -> Slider:
        """The pictures as small as they have to be in one file with those of so many groups."""
        if self.of_videos:
            size = f"more than {MAX_EMBEDDED_BYTES >> 20} MiB"
            raise UsageError(self.paths[0], size, "leave out --one-file")
        images, caption = self.read(metrics)
        pictures = list(zip(labels, images, strict=True))
        return embed(self.name, caption, pictures, max_bytes=MAX_EMBEDDED_BYTES // groups)

    def place(self, folder: PageFolder, labels: Sequence[str], metrics: Sequence[Metric]) -> Slider:
        """Writes pictures, or videos that browsers play, into the folder of a page."""
        if not self.of_videos:
            images, caption = self.read(metrics)
            return folder.place(self.name, caption, list(zip(labels, images, strict=True)))
        layers = []
        for label, source in zip(labels, self.paths, strict=True):
            suffix = source.suffix.lower()
            if suffix in MIME_TYPES and probe(source).codec in _PLAYED:
                path = folder.add(suffix)
                shutil.copyfile(source, path)
            else:
                path = folder.add(".mp4")
                restore_video(source, path, lambda frame: frame, codec="h264", strip=True)
            layers.append(Layer(label, path.name))
        info = probe(self.paths[0])
        fps = float(info.fps) if info.fps else 25.0
        length = "" if info.seconds is None else f", {info.seconds:.1f} s"
        caption = f"{info.width}x{info.height} px, {fps:.4g} fps{length}"
        return Slider(self.name, caption, info.width, info.height, tuple(layers), fps)


def size_of(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]} px"


def write_comparison(
    target: Path,
    before: Path,
    after: Path,
    sharp: Path | None = None,
    *,
    labels: Sequence[str] = (),
    one_file: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> WrittenPage:
    """Writes a page of before/after sliders for two pictures or videos, or two folders of them.

    Files of folders belong together when their paths below the folders are the same but for the
    suffix and the ``-sharp`` of our results. Everything can be looked at 1:1; where it takes more
    than `MAX_EMBEDDED_BYTES`, it lies in a folder beside the page, ``page_files``.

    Args:
        sharp: the ground truth, which PSNR and SSIM (with the extra ``eval``) are given against.
        labels: other names than Before, After and Sharp; no figures are given then, because the
            third need not be the truth.
        one_file: never a folder; pictures are made smaller instead, which the page says.
        on_progress: is told how many of how many sliders are made.

    Raises:
        DeblurError: files without partner, of different sizes, or unreadable; the page or its
            folder exists.
        UsageError: as many labels as sources wanted; videos too large for one file.
    """
    sources = [before, after] + ([sharp] if sharp is not None else [])
    groups = _match(sources)
    if labels and len(labels) != len(sources):
        raise UsageError("--labels", f"{len(sources)} wanted", "give one for each source")
    metrics = [m for m in find_metrics() if m.name in ("psnr_db", "ssim")]
    metrics = metrics if sharp is not None and not labels else []
    labels = labels or ("Before", "After", "Sharp")[: len(sources)]
    title = groups[0].name if len(groups) == 1 else f"{before.name} and {after.name}"
    sliders: list[Slider] = []
    with page_folder(target, overwrite=overwrite) as folder:
        for group in groups:
            sliders.append(group.place(folder, labels, metrics))
            on_progress(len(sliders), len(groups))
        reduced = one_file and folder.size_bytes() > MAX_EMBEDDED_BYTES
        if reduced:
            sliders = [group.reduce(labels, metrics, len(groups)) for group in groups]
        return _write_sliders(
            target, folder, title, sliders, metrics, overwrite=overwrite, reduced=reduced
        )


def _write_sliders(
    target: Path,
    folder: PageFolder,
    title: str,
    sliders: Sequence[Slider],
    metrics: Sequence[Metric] = (),
    *,
    overwrite: bool,
    reduced: bool = False,
) -> WrittenPage:
    """Writes the page of sliders: with all pictures in it, where they fit or are `reduced`."""
    lead = ["Drag across a picture, or move its handle with the arrow keys."]
    folder.kept = not reduced and folder.size_bytes() > MAX_EMBEDDED_BYTES
    if folder.kept:
        name = folder.final.name
        lead.append(f"The pictures lie in the folder {name}: keep it beside this page.")
    write_page(
        target,
        "compare.html",
        title=title,
        lead=lead,
        footer=[
            *(metric.convention for metric in metrics),
            f"Pictures are compressed (WebP) copies. deblurcli {__version__}",
        ],
        overwrite=overwrite,
        folder=folder,
        figures=sliders,
    )
    size_bytes = target.stat().st_size + (folder.size_bytes() if folder.kept else 0)
    beside = folder.final if folder.kept else None
    return WrittenPage(target, len(sliders), size_bytes, beside, reduced)


def write_preview(
    target: Path,
    source: Path,
    restore: Restore,
    count: int,
    *,
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> WrittenPage:
    """Writes a page of sliders for `count` frames spread over a video from `start` to `end`
    seconds, and restores no others. Raises DeblurError where the video can't be decoded, or the
    page can't be written."""
    info, begin = probe(source), start or 0.0
    length = float(info.frame_count / info.fps) if info.frame_count and info.fps else begin
    seconds = max(0.0, (length if end is None else min(end, length)) - begin)
    fps = float(info.fps or 25)
    count = max(1, min(count, round(seconds * fps)))
    sliders = []
    with page_folder(target, overwrite=overwrite) as folder:
        for number in range(count):
            # In the middle of its share, and surely before the last frame.
            at = begin + max(0.0, seconds * (number + 0.5) / count - 0.75 / fps)
            with closing(VideoReader(source, at, end, upright=True)) as reader:
                frame = next(reader.steps()).frame
                assert frame is not None  # `steps` raises where there is none
                blurred = pixels_of(frame)
            layers = [("Before", to_uint8(blurred)), ("After", to_uint8(restore(blurred)))]
            name = f"{number + 1} ({at:.2f} s)"
            sliders.append(folder.place(name, size_of(blurred), layers))
            on_progress(number + 1, count)
        title = f"{source.name} and restored"
        return _write_sliders(target, folder, title, sliders, overwrite=overwrite)


def _match(sources: Sequence[Path]) -> list[Group]:
    """The files that belong together, in the order of the first source."""
    for source in sources:
        if not source.exists():
            raise DeblurError(source, "no such file or folder", "give pictures or folders of them")
    folders = [source for source in sources if source.is_dir()]
    files = [source for source in sources if source not in folders]
    if not folders:
        return [Group(sources[0].name, tuple(sources))]
    if files:
        reason = f"a file, but {folders[0]} is a folder"
        raise DeblurError(files[0], reason, "give files only, or folders only")
    found = {source: _find(source) for source in sources}
    for one, other in itertools.permutations(sources, 2):
        for name in found[one].keys() - found[other].keys():
            reason = f"has no partner in {other}"
            raise DeblurError(found[one][name], reason, "give folders with the same names")
    names = found[sources[0]]
    return [Group(name, tuple(found[source][name] for source in sources)) for name in names]


def _find(folder: Path) -> dict[str, Path]:
    """The pictures and videos below a folder by their path within it but for suffix and -sharp."""
    found: dict[str, Path] = {}
    for path in natsorted(folder.rglob("*"), alg=ns.PATH):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(p.startswith(".") for p in inside.parts):
            continue
        name = inside.with_name(inside.stem.removesuffix("-sharp")).as_posix()
        other = found.setdefault(name, path)
        if other != path:
            raise DeblurError(path, f"has the name of {other}", "keep one of them")
    if not found:
        raise NothingToDoError(folder, "no pictures or videos in it", "give folders of them")
    return found
