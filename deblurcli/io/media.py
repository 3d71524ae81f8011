"""What kind of file a path is, and which photos and videos a folder holds."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from natsort import natsorted, ns

from deblurcli.errors import logger
from deblurcli.io.photos import FORMATS, PHOTO_SUFFIXES, format_of

Kind = Literal["photo", "video", "animation", "frames"]
"""What an input is taken for; ``frames`` is a folder of numbered pictures of one clip."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".mts", ".m2ts", ".mpg", ".mpeg"}
    | {".wmv", ".flv", ".ogv", ".ts", ".vob", ".mxf", ".ivf", ".lrv"}
)
SUFFIXES = PHOTO_SUFFIXES | VIDEO_SUFFIXES
"""Every file name ending that is taken for a photo or a video, in lower case."""

OWN_MARK = "-sharp"
"""What our own outputs' names end in when they lie beside their input: ``photo-sharp.jpg``."""


def kind_of(path: Path) -> Kind:
    """What `path` is taken for by its name: a video if it ends like one, else a photo."""
    return "video" if path.suffix.lower() in VIDEO_SUFFIXES else "photo"


def usual_suffix(path: Path) -> str | None:
    """Gives the usual ending for the photo or video that a file holds, else None."""
    if photo_format := format_of(path):
        return FORMATS[photo_format].suffixes[0]
    from deblurcli.errors import DeblurError
    from deblurcli.io.videos import CONTAINERS  # takes its time, and few names are odd
    from deblurcli.io.videos.info import open_video, video_stream

    try:
        with open_video(path) as container:
            video_stream(container, path)
            names = container.format.name.split(",")
    except DeblurError:
        return None
    return next((suffix for suffix, name in CONTAINERS.items() if name in names), ".mp4")


def find_clip(folder: Path) -> list[Path]:
    """The numbered frames of `folder`, in natural order, if it holds those and no video; otherwise
    none. Raises OSError where it can't be read."""
    found = find(folder, videos=True)
    return found if frame_numbers(found) and kind_of(found[0]) == "photo" else []


def find(
    folder: Path, *, recursive: bool = False, videos: bool = False, leave_out: Iterable[Path] = ()
) -> list[Path]:
    """The photos in `folder`, in natural order (2.jpg before 10.jpg), folder by folder; with
    `videos` also these, with `recursive` also of the folders below, but for those to leave out.

    Hidden files and folders and our own outputs are left out. Links to files are followed,
    links to folders are not (they may lead in a circle). Raises OSError where `folder` itself can't
    be read; unreadable folders below it are passed over with a warning.
    """
    wanted = SUFFIXES if videos else PHOTO_SUFFIXES
    closed = {os.path.realpath(path) for path in leave_out}

    def pass_over(error: OSError) -> None:
        if error.filename is None or Path(error.filename) == folder:
            raise error
        logger.warning("%s: can't be read (%s); passed over", error.filename, error.strerror)

    found = []
    for here, folders, names in os.walk(folder, onerror=pass_over):
        folders[:] = [
            name
            for name in folders
            if recursive
            and not name.startswith(".")
            and not name.endswith((OWN_MARK, ".part"))
            and os.path.realpath(Path(here, name)) not in closed
        ]
        paths = (Path(here, name) for name in names if not name.startswith("."))
        found += [
            path
            for path in paths
            if not path.stem.endswith(OWN_MARK) and path.suffix.lower() in wanted and path.is_file()
        ]
    # As people order them: numbers by value, letters regardless of case.
    return natsorted(found, alg=ns.PATH | ns.IGNORECASE)


def frame_numbers(photos: Sequence[Path]) -> list[int]:
    """The number of each frame of one clip, as in ``frame_0001.png``, ``frame_0002.png``. Empty
    where the photos are no such frames: at least two, whose names differ only in one number."""
    if len(photos) < 2 or len({path.suffix.lower() for path in photos}) > 1:
        return []
    parts = [re.split(r"(\d+)", path.stem) for path in photos]
    if len({len(part) for part in parts}) > 1:
        return []
    # Every other part is a number; "01" and "1" are the same.
    alike = [[int(text) if n % 2 else text for n, text in enumerate(part)] for part in parts]
    differing = [n for n, texts in enumerate(zip(*alike, strict=True)) if len(set(texts)) > 1]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return []
    return [int(part[differing[0]]) for part in parts]


def is_animated(path: Path) -> bool:
    """Whether a file is a GIF, WebP, PNG or AVIF of more than one frame, by its header."""
    if path.suffix.lower() not in {".gif", ".webp", ".png", ".apng", ".avif"}:
        return False
    from PIL import Image

    try:
        with Image.open(path, formats=["GIF", "WEBP", "PNG", "AVIF"]) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # damaged in whatever way: reading it as a photo will say how
        return False
