"""Where blurred and sharp pictures lie: the layouts of the public data sets, and plain folders.

| layout | folders |
|---|---|
| GOPRO_Large | ``train|test/SEQUENCE/blur|blur_gamma|sharp/NNNNNN.png`` |
| REDS | ``train|val/SPLIT_blur/CLIP/NNNNNNNN.png`` and ``…/SPLIT_sharp/…`` |
| pairs | ``blur/NAME`` and ``sharp/NAME`` (or ``blurred/``) |
| photos | any pictures, taken as sharp |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted, ns

from deblurcli.errors import DeblurError, NothingToDoError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_BLURRED_NAMES = ("blur", "blurred", "blur_gamma")


@dataclass(frozen=True)
class Pair:
    """One blurred picture and its sharp one.

    Attributes:
        name: unique within the set, ``SEQUENCE/FILE`` without suffix.
        blurred, sharp: the files.
        kind: ``"GOPRO linear"``, ``"GOPRO gamma"``, ``"REDS"`` or ``"pairs"``.
    """

    name: str
    blurred: Path
    sharp: Path
    kind: str


def find_pairs(root: str | os.PathLike[str], split: str | None = None) -> list[Pair]:
    """The pairs below `root`, in natural order.

    Args:
        root: a data set's folder, or one of its splits or sequences.
        split: ``"train"``, ``"test"`` or ``"val"``: only that part where the layout has parts
            (REDS calls its test part "val": either name finds it).

    Raises:
        DeblurError: no folder, or a picture without its partner (which is named).
        NothingToDoError: no pairs in any known layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise DeblurError(root, "no such folder", "give the folder of a data set")
    pairs: list[Pair] = []
    for folder in _folders(_enter_split(root, split)):
        if folder.name in _BLURRED_NAMES and (folder.parent / "sharp").is_dir():
            sharp = folder.parent / "sharp"
            gopro = folder.parent.name.startswith("GOPR")
            kind = "pairs"
            if gopro or folder.name == "blur_gamma":
                kind = "GOPRO gamma" if folder.name == "blur_gamma" else "GOPRO linear"
        elif folder.name.endswith("_blur"):
            sharp = folder.with_name(folder.name.removesuffix("_blur") + "_sharp")
            kind = "REDS"
        else:
            continue
        pairs += _match(folder, sharp, kind, root)
    if not pairs:
        raise NothingToDoError(
            root,
            "no pairs of blurred and sharp pictures in the layout of GOPRO or REDS, "
            "nor folders named blur and sharp",
            "see 'deblur train --help' for the layouts",
        )
    return natsorted(pairs, key=lambda pair: (pair.kind, pair.name), alg=ns.PATH)


def find_pictures(root: str | os.PathLike[str]) -> list[Path]:
    """Every picture file below a folder, in natural order; hidden ones are left out.

    Raises:
        DeblurError: no such folder.
        NothingToDoError: no pictures in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DeblurError(root, "no such folder", "give a folder of sharp photos")
    found = [path for folder in _folders(root) for path in _pictures(folder)]
    if not found:
        raise NothingToDoError(root, "no pictures in it", "give a folder of sharp photos")
    return natsorted(found, alg=ns.PATH)


def _enter_split(root: Path, split: str | None) -> Path:
    wanted = {None: (), "test": ("test", "val"), "val": ("val", "test")}.get(split, (split,))
    return next((root / name for name in wanted if name and (root / name).is_dir()), root)


def _folders(root: Path) -> list[Path]:
    return [
        Path(folder)
        for folder, children, _ in os.walk(root, followlinks=True)
        if not children.sort() and not any(p.startswith(".") for p in
                                           Path(folder).relative_to(root).parts)
    ]


def _pictures(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]


def _match(blurred_root: Path, sharp_root: Path, kind: str, root: Path) -> list[Pair]:
    """Pairs of files with the same path below two folders; the suffix may differ."""

    def files(top: Path) -> dict[str, Path]:
        found = (path for folder in _folders(top) for path in _pictures(folder))
        return {path.relative_to(top).with_suffix("").as_posix(): path for path in found}

    blurred, sharp = files(blurred_root), files(sharp_root)
    for missing in sorted(blurred.keys() ^ sharp.keys()):
        alone = blurred.get(missing) or sharp[missing]
        other = sharp_root if missing in blurred else blurred_root
        raise DeblurError(alone, f"has no partner in {other}", "add it, or remove this picture")
    prefix = blurred_root.parent.relative_to(root)
    # Both of GOPRO's kinds may lie beside each other: the name tells them apart.
    mark = Path("gamma") if kind == "GOPRO gamma" else Path()
    return [
        Pair((prefix / mark / name).as_posix(), blurred[name], sharp[name], kind)
        for name in blurred
    ]
