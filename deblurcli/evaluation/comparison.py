"""Pages of before/after sliders: which pictures or videos belong together, what is said of them."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from natsort import natsorted, ns

from deblurcli import __version__
from deblurcli.errors import DeblurError, NothingToDoError, UsageError, cannot_read, sizes_differ
from deblurcli.evaluation.cases import read_image
from deblurcli.evaluation.html import MAX_EMBEDDED_BYTES, MIME_TYPES, Layer, Page, Slider, new_page
from deblurcli.evaluation.metrics import SSIM_MIN_PX, Metric, find_metrics
from deblurcli.io.image import to_uint8
from deblurcli.io.media import SUFFIXES, kind_of
from deblurcli.io.options import Progress
from deblurcli.io.videos import probe, restore_video
from deblurcli.io.videos.neighbours import Restore
from deblurcli.io.videos.pixels import pixels_of
from deblurcli.io.videos.reading import VideoReader


@dataclass(frozen=True)
class WrittenPage:
    """What came out."""

    path: Path
    sliders: int  # their number
    size_bytes: int  # of the page and the folder
    folder: Path | None = None  # with the pictures, beside the page; else the page holds all itself
    reduced: bool = False  # some pictures are smaller than they were


def place_pictures(
    page: Page,
    name: str,
    paths: Sequence[Path],
    labels: Sequence[str],
    metrics: Sequence[Metric],
    max_bytes: int | None = None,
) -> Slider:
    """Adds pictures of one size to a page, in full or as small as `max_bytes` asks.

    If `metrics` are given, the caption says how far they are from the last, the truth. Raises
    DeblurError if they are of different sizes.
    """
    images = [read_image(path) for path in paths]
    height, width = images[0].shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise sizes_differ(path, image.shape[1::-1], paths[0], (width, height))
    caption = f"{width}x{height} px"
    if metrics and min(height, width) >= SSIM_MIN_PX:
        figures = []
        for image in images[:-1]:
            psnr_db, *ssim = (metric.measure(image, images[-1]) for metric in metrics)
            figures.append(f"{psnr_db:.2f} dB" + "".join(f", SSIM {s:.4f}" for s in ssim))
        caption += f" · {' → '.join(figures)}"
    pictures = list(zip(labels, images, strict=True))
    if max_bytes is None:
        return page.place(name, caption, pictures)
    return page.place_reduced(name, caption, pictures, max_bytes)


def place_videos(page: Page, name: str, paths: Sequence[Path], labels: Sequence[str]) -> Slider:
    """Adds videos to a page; what browsers don't play is encoded anew."""
    layers = []
    for label, source in zip(labels, paths, strict=True):
        suffix = source.suffix.lower()
        if suffix in MIME_TYPES and probe(source).codec in ("h264", "vp8", "vp9", "av1"):
            path = page.add(suffix)
            shutil.copyfile(source, path)
        else:
            path = page.add(".mp4")
            restore_video(source, path, lambda frame: frame, codec="h264", strip=True)
        layers.append(Layer(label, path.name))
    info = probe(paths[0])
    fps = float(info.fps) if info.fps else 25.0
    length = "" if info.seconds is None else f", {info.seconds:.1f} s"
    caption = f"{info.width}x{info.height} px, {fps:.4g} fps{length}"
    return Slider(name, caption, info.width, info.height, tuple(layers), fps)


def write_comparison(
    target: Path,
    before: Path,
    after: Path,
    sharp: Path | None = None,
    *,
    labels: Sequence[str] = (),
    one_file: bool = False,
    overwrite: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> WrittenPage:
    """Writes a page of before/after sliders for two pictures or videos, or two folders of them.

    Files of folders belong together when their paths below the folders are the same but for the
    suffix and the ``-sharp`` of our results. Everything can be looked at 1:1; where it takes more
    than `MAX_EMBEDDED_BYTES`, it lies in a folder beside the page, ``page_files``.

    Args:
        sharp: the ground truth, which PSNR and SSIM (with the extra ``eval``) are given against.
        labels: other names than Before, After and Sharp; without figures, as the third may be no
            truth.
        one_file: never a folder; pictures are made smaller instead, which the page says.
        on_progress: is told how many of how many sliders are made.

    Raises DeblurError where files have no partner, are of different sizes or unreadable, or the
    page or its folder exists; UsageError for too few labels, or videos too large for one file.
    """
    sources = [before, after] + ([sharp] if sharp is not None else [])
    groups = match(sources)
    if labels and len(labels) != len(sources):
        raise UsageError("--labels", f"{len(sources)} wanted", "give one for each source")
    metrics = [m for m in find_metrics() if m.name in ("psnr_db", "ssim")]
    metrics = metrics if sharp is not None and not labels else []
    labels = labels or ("Before", "After", "Sharp")[: len(sources)]
    title = next(iter(groups)) if len(groups) == 1 else f"{before.name} and {after.name}"
    sliders: list[Slider] = []
    with new_page(target, overwrite=overwrite) as page:
        for name, paths in groups.items():
            if kind_of(paths[0]) == "video":
                sliders.append(place_videos(page, name, paths, labels))
            else:
                sliders.append(place_pictures(page, name, paths, labels, metrics))
            on_progress(len(sliders), len(groups))
        reduced = one_file and page.size_bytes() > MAX_EMBEDDED_BYTES
        if reduced:
            if videos := [paths[0] for paths in groups.values() if kind_of(paths[0]) == "video"]:
                size = f"more than {MAX_EMBEDDED_BYTES >> 20} MiB, with {videos[0]}"
                raise UsageError(target, size, "leave out --one-file")
            share = MAX_EMBEDDED_BYTES // len(groups)
            sliders = [
                place_pictures(page, name, paths, labels, metrics, share)
                for name, paths in groups.items()
            ]
        return write_sliders(page, title, sliders, metrics, reduced=reduced)


def write_sliders(
    page: Page,
    title: str,
    sliders: Sequence[Slider],
    metrics: Sequence[Metric] = (),
    *,
    reduced: bool = False,
) -> WrittenPage:
    """Writes the page of sliders: with all pictures in it, where they fit or are `reduced`."""
    lead = ["Drag across a picture, or move its handle with the arrow keys."]
    page.keeps_folder = not reduced and page.size_bytes() > MAX_EMBEDDED_BYTES
    folder = page.folder if page.keeps_folder else None
    if folder is not None:
        lead.append(f"The pictures lie in the folder {folder.name}: keep it beside this page.")
    copies = f"Pictures are compressed (WebP) copies. deblurcli {__version__}"
    footer = [*(metric.convention for metric in metrics), copies]
    page.write("compare.html", title=title, lead=lead, footer=footer, figures=sliders)
    size_bytes = page.target.stat().st_size + (page.size_bytes() if folder else 0)
    return WrittenPage(page.target, len(sliders), size_bytes, folder, reduced)


def write_preview(
    target: Path,
    source: Path,
    restore: Restore,
    count: int,
    *,
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    on_progress: Progress = lambda done, total: None,
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
    with new_page(target, overwrite=overwrite) as page:
        for number in range(count):
            # In the middle of its share, and surely before the last frame.
            at = begin + max(0.0, seconds * (number + 0.5) / count - 0.75 / fps)
            with closing(VideoReader(source, at, end, upright=True)) as reader:
                frame = next(reader.steps()).frame
                assert frame is not None  # `steps` raises where there is none
                blurred = pixels_of(frame)
            layers = [("Before", to_uint8(blurred)), ("After", to_uint8(restore(blurred)))]
            name = f"{number + 1} ({at:.2f} s)"
            caption = f"{blurred.shape[1]}x{blurred.shape[0]} px"
            sliders.append(page.place(name, caption, layers))
            on_progress(number + 1, count)
        title = f"{source.name} and restored"
        return write_sliders(page, title, sliders)


def match(sources: Sequence[Path]) -> dict[str, list[Path]]:
    """The files that belong together, by name, in the order of the first source.

    Raises DeblurError for files without partner, of one name, or of different kinds.
    """
    for source in sources:
        if not source.exists():
            raise cannot_read(source, FileNotFoundError())
    folders = [source for source in sources if source.is_dir()]
    files = [source for source in sources if source not in folders]
    if folders and files:
        reason = f"a file, but {folders[0]} is a folder"
        raise DeblurError(files[0], reason, "give files only, or folders only")
    found = list(map(find, folders)) if folders else [{sources[0].name: file} for file in files]
    for (_, one), (place, other) in permutations(zip(sources, found, strict=True), 2):
        for name in one.keys() - other.keys():
            reason = f"has no partner in {place}"
            raise DeblurError(one[name], reason, "give folders with the same names")
    groups = {name: [paths[name] for paths in found] for name in found[0]}
    for first, *others in groups.values():
        for path in others:
            if (kind_of(path) == "video") != (kind_of(first) == "video"):
                raise DeblurError(path, f"is not of the kind of {first}", "give two of a kind")
    return groups


def find(folder: Path) -> dict[str, Path]:
    """The pictures and videos below a folder by their path within it but for suffix and -sharp."""
    found: dict[str, Path] = {}
    for path in natsorted(folder.rglob("*"), alg=ns.PATH):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(p.startswith(".") for p in inside.parts):
            continue
        name = inside.with_name(inside.stem.removesuffix("-sharp")).as_posix()
        if found.setdefault(name, path) != path:
            raise DeblurError(path, f"has the name of {found[name]}", "keep one of them")
    if not found:
        raise NothingToDoError(folder, "no pictures or videos in it", "give folders of them")
    return found
