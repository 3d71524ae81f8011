"""Where blurred and sharp pictures lie: the layouts of the public data sets, and plain folders.

Whatever folder of such a set is given, from the one that holds several sets down to a single
sequence, the pairs below it are found. docs/data.md has a table of the layouts.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted, ns

from deblurcli.data.pictures import PICTURE_SUFFIXES, read_sizes
from deblurcli.errors import DeblurError, NothingToDoError, UsageError, sizes_differ, too_small

# Names of blurred folders, in small letters, and of the sharp ones that lie beside them.
_PARTNERS = {
    "blur": ("sharp", "gt"),
    "blurred": ("sharp",),
    "blur_gamma": ("sharp",),
    "input": ("target",),
    "lq": ("gt",),
    "blur_crops": ("sharp_crops",),
    "input_crops": ("target_crops",),
}
# Names that say that a folder without a known partner is half of a pair all the same.
_TELLING = re.compile(r"blur|^(lq|lr|inputs?|source|degraded|low)$", re.IGNORECASE)
_PARTS = ("train", "test", "val")
# A set without the wanted part may have the other one: REDS calls its public test part "val".
_STAND_INS = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}


@dataclass(frozen=True)
class Pair:
    """One blurred picture and its sharp one."""

    # Unique within the set: the path below the folder that was searched, without suffix and without
    # the names of the blurred folders.
    name: str
    blurred: Path
    sharp: Path
    kind: str  # GOPRO linear or gamma, REDS, REDS compressed, RealBlur-J or -R, HIDE, or pairs
    part: str | None = None  # "train", "test" or "val" where the folders say so


@dataclass(frozen=True)
class BlurredFolder:
    """A folder of blurred pictures and that of the sharp ones."""

    path: Path
    sharp: Path
    kind: str
    prefix: tuple[str, ...]  # of the names of its pairs
    part: str | None
    data_set: tuple[str, ...]  # the folders above its part

    def pairs(self) -> Iterator[Pair]:
        """Pairs of files with the same path below both folders; the suffix may differ. Raises
        DeblurError for a picture without a partner."""
        blurred, sharp = _pictures_by_name(self.path), _pictures_by_name(self.sharp)
        if self.kind == "HIDE":  # train and test in folders of their own share one of sharp ones
            blurred = {name.rpartition("/")[2]: path for name, path in blurred.items()}
            sharp = {name: path for name, path in sharp.items() if name in blurred}
        alone = natsorted(blurred.keys() ^ sharp.keys())
        if alone:
            path = blurred.get(alone[0]) or sharp[alone[0]]
            other = self.sharp if alone[0] in blurred else self.path
            more = f" (nor have {len(alone) - 1} others)" if len(alone) > 1 else ""
            reason = f"has no partner in {other}{more}"
            raise DeblurError(path, reason, "add it, or remove this picture")
        for name, path in blurred.items():
            yield Pair("/".join((*self.prefix, name)), path, sharp[name], self.kind, self.part)


def find_pairs(root: str | os.PathLike[str], split: str | None = None) -> list[Pair]:
    """The pairs below `root`, in natural order. Only names are looked at, no file is opened.

    With a `split`, ``"train"``, ``"test"`` or ``"val"``, only that part of the sets below `root`
    that have parts (one without a test part gives its val part, and the reverse).

    Raises DeblurError for no folder, or a picture or folder without its partner (which is named),
    NothingToDoError for no pairs in any known layout, UsageError for none of that part.
    """
    root = Path(root)
    if not root.is_dir():
        raise DeblurError(root, "no such folder", "give the folder of a data set")
    folders = list(_find_blurred(root))
    if not folders:
        holding = [folder for folder, pictures in _walk(root) if pictures]
        for folder in (folder for folder in holding if _TELLING.search(folder.name)):
            for other in holding:
                if other.parent == folder.parent and other != folder:
                    names = f"{folder.name} and {other.name}"
                    reason = f"looks like pairs (folders {names}), but in no layout that is known"
                    # To take them for sharp photos would teach to blur.
                    raise UsageError(root, reason, "rename them to blur and sharp")
        reason = "no pairs of blurred and sharp pictures in any known layout"
        raise NothingToDoError(root, reason, "see 'deblur train --help' for the layouts")
    if split is not None:
        chosen = []
        for data_set in dict.fromkeys(folder.data_set for folder in folders):
            members = [folder for folder in folders if folder.data_set == data_set]
            parts = {folder.part for folder in members}
            taken = next((part for part in _STAND_INS.get(split, (split,)) if part in parts), None)
            chosen += [folder for folder in members if folder.part in (None, taken)]
        if not chosen:
            others = " and ".join(sorted({folder.part for folder in folders if folder.part}))
            raise UsageError(root, f"has no {split} part, only {others}", "give one that has")
        folders = chosen
    pairs = [pair for folder in folders for pair in folder.pairs()]
    if not pairs:
        raise NothingToDoError(root, "its folders hold no pictures", "check the data set")
    return natsorted(pairs, key=lambda pair: (pair.kind, pair.name), alg=ns.PATH)


def find_pictures(root: str | os.PathLike[str]) -> list[Path]:
    """Every picture file below a folder, in natural order, but for hidden ones. Raises DeblurError
    for no folder, NothingToDoError for one without pictures."""
    root = Path(root)
    if not root.is_dir():
        raise DeblurError(root, "no such folder", "give another")
    found = [path for _, pictures in _walk(root) for path in pictures]
    if not found:
        raise NothingToDoError(root, "no pictures in it", "give another folder")
    return natsorted(found, alg=ns.PATH)


def check_pairs(
    pairs: Sequence[Pair], min_px: int = 1, remedy: str = "use smaller patches"
) -> None:
    """Reads the headers of all files, so that hours of training don't end at a bad one. Raises
    DeblurError for the first file that is no picture, differs in size from its partner or has a
    side below `min_px`; `remedy` is what can be done about that beside leaving it out."""
    sizes = read_sizes(path for pair in pairs for path in (pair.blurred, pair.sharp))  # in turn
    for pair, size, partner in zip(pairs, sizes, sizes, strict=True):
        if size != partner:
            raise sizes_differ(pair.blurred, size, pair.sharp, partner)
        if min(size) < min_px:
            raise too_small(pair.blurred, size, min_px, f"take it out of the data, or {remedy}")


def keep_blur(pairs: Sequence[Pair], blur: str, root: str | os.PathLike[str]) -> list[Pair]:
    """Leaves out GOPRO's pairs of the other blur: ``"linear"``, ``"gamma"`` or ``"both"``. Raises
    UsageError where `root`, which they come from, holds no others."""
    other = {"linear": "GOPRO gamma", "gamma": "GOPRO linear"}.get(blur)
    kept = [pair for pair in pairs if pair.kind != other]
    if not kept:
        reason = f"has no GOPRO pairs of blur {blur}, holds only {other} pairs"
        raise UsageError(root, reason, "give --blur both")
    return kept


def hold_out_scenes(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Divides pairs into those to train on and those to validate on. Every tenth scene (folder) is
    held out, or at least one. Of a single scene it is the last tenth of its pictures, as neighbours
    resemble each other; of fewer than ten nothing is."""
    scenes = dict.fromkeys(pair.sharp.parent for pair in pairs)
    if len(scenes) > 1:
        held = {scene for n, scene in enumerate(scenes) if n % 10 == min(5, len(scenes) - 1)}
        kept = [pair for pair in pairs if pair.sharp.parent not in held]
        return kept, [pair for pair in pairs if pair.sharp.parent in held]
    # A gap of a few frames lies between both.
    count = len(pairs) // 10
    return list(pairs[: len(pairs) - 2 * count or None]), list(pairs[len(pairs) - count :])


def _find_blurred(root: Path) -> Iterator[BlurredFolder]:
    """The folders of blurred pictures below `root`, each with its sharp one."""
    listed = _read_lists(root)
    for folder, _ in _walk(root):
        whole = Path(os.path.abspath(folder))  # noqa: PTH100  (root may be given as "." or "..")
        name, above = whole.name, whole.parent if folder == root else folder.parent
        prefix = folder.parent.relative_to(root).parts if folder != root else ()
        part = next((word for word in prefix if word in _PARTS), None)
        data_set = prefix[: prefix.index(part)] if part else prefix
        partners = _PARTNERS.get(name.lower(), ())
        beside: dict[str, Path] = {}
        if partners or name in ("train", "test"):
            with suppress(OSError):  # what lies above the root may be none of our business
                beside = {path.name.lower(): path for path in above.iterdir() if path.is_dir()}
        if name in ("train", "test") and "gt" in beside and _holds_blurred(folder):
            yield BlurredFolder(folder, beside["gt"], "HIDE", (name,), name, ())
        reds = re.fullmatch(r"(.+)_blur(_comp)?", name)
        if not reds and not partners:
            continue
        if reds:
            sharp, kind = above / f"{reds[1]}_sharp", "REDS compressed" if reds[2] else "REDS"
            part = part or (reds[1] if reds[1] in _PARTS else None)
            # train_blur and val_blur may lie beside each other.
            prefix += () if reds[1] in prefix else (reds[1],)
        else:
            sharp = next((beside[p] for p in partners if p in beside), above / partners[0])
            kind = _kind_of(name, sharp.name, above, beside)
        # Several kinds of the same pictures may lie beside each other.
        if kind in ("GOPRO gamma", "REDS compressed"):
            prefix += (kind.split()[1],)
        elif name == "blurred" and "blur" in beside:
            prefix += (name,)
        if sharp.is_dir():
            part = listed.get(above.resolve(), part)
            yield BlurredFolder(folder, sharp, kind, prefix, part, data_set)
        # Photos may lie in a folder "input"; and REDS keeps its sharp test pictures back.
        elif name != "input" and not name.startswith("test_") and _holds_blurred(folder):
            reason = f"blurred pictures, but no folder {sharp.name} beside it"
            raise DeblurError(folder, reason, "add it")


def _holds_blurred(folder: Path) -> bool:
    """Whether there are pictures below, and not in folders of blurred and sharp ones: a data set
    may itself lie in a folder of such a name."""
    below = dict(_walk(folder))
    names = {child.name.lower() for child in below if child != folder}
    return any(below.values()) and not names & _PARTNERS.keys()


def _read_lists(root: Path) -> dict[Path, str]:
    """The part that each scene of RealBlur belongs to, as the lists beside its folders say."""
    parts: dict[Path, str] = {}
    for folder in (root.resolve(), *root.resolve().parents[:2]):
        for path in folder.glob("RealBlur_*_list.txt"):
            for line in path.read_text("utf-8", "replace").splitlines():
                scene = (folder / line.partition(" ")[0]).parent.parent
                parts[scene] = "test" if "_test_" in path.name else "train"
    return parts


def _kind_of(name: str, sharp: str, above: Path, beside: Mapping[str, Path]) -> str:
    """The data set that the folders `name` and `sharp` in `above` belong to."""
    if name == "blur_gamma":
        return "GOPRO gamma"
    if (name, sharp) == ("blur", "gt"):
        sets = [word.partition("_")[0] for word in above.parts if word.startswith("RealBlur-")]
        return sets[0] if sets else "pairs"
    in_sequence = above.parent.name in _PARTS and above.name not in _PARTS
    is_gopro = above.name.startswith("GOPR") or "blur_gamma" in beside or in_sequence
    return "GOPRO linear" if name == "blur" and is_gopro else "pairs"


def _pictures_by_name(top: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in (path for _, pictures in _walk(top) for path in pictures):
        name = path.relative_to(top).with_suffix("").as_posix()
        name = re.sub(r"^(blur|gt)_(?=\d)", "", name)  # as RealBlur names its pictures
        if name in found:
            raise DeblurError(path, f"has the name of {found[name].name}", "keep one of the two")
        found[name] = path
    return found


def _walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """`root` and the folders below it, in order of name, each with its pictures; no hidden ones.
    Links are followed, as large data often lie elsewhere, but not back to a folder above."""
    for here, children, files in os.walk(root, followlinks=True):
        folder = Path(here)
        for name in list(children):
            path = folder / name
            leads_back = path.is_symlink() and path.resolve() in {p.resolve() for p in path.parents}
            if name.startswith(".") or leads_back:
                children.remove(name)
        children.sort()
        paths = (folder / name for name in files if not name.startswith("."))
        yield folder, [path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES]
