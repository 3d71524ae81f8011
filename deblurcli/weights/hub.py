"""Finding weights by name: here if they are here, else downloaded, and only if intact.

A name is looked up in the manifests (`manifest`) and its file searched in these places:

1. the folder that ``DEBLUR_WEIGHTS_DIR`` names,
2. the installed package (``deblurcli/_weights``),
3. ``weights/`` of the checkout, when deblurcli runs from one,
4. the user's cache, where downloaded and imported weights lie.

Then it is downloaded: from ``DEBLUR_WEIGHTS_URL`` if that is set, then from the manifest's
sources. A file whose sha256 is not the manifest's is never given out, wherever it lies.

This module imports neither torch nor anything that talks to the network until it has to.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import platformdirs

from deblurcli.errors import WeightsError
from deblurcli.weights.download import Patience, Progress, fetch
from deblurcli.weights.manifest import MANIFEST_NAME, Entry, Manifest, describe, read_manifest

DEFAULT_NAME = "compact"
SUFFIX = ".safetensors"
SHIPPED = ("package", "checkout")
"""Labels of the places that hold deblurcli's own weights."""
_PACKAGE = Path(__file__).parents[1]

State = Literal["intact", "damaged", "absent", "unlisted"]
"""Of a weights file: its sha256 is right; is wrong; it is not here; no manifest names it."""

logger = logging.getLogger("deblurcli")


@dataclass(frozen=True)
class Place:
    """A folder where weights are looked for.

    Attributes:
        label: what to call it: "DEBLUR_WEIGHTS_DIR", "package", "checkout" or "cache".
    """

    label: str
    folder: Path


@dataclass(frozen=True)
class Listing:
    """One weights file as `deblur weights list` shows it.

    Attributes:
        entry: what the manifest says, or, for an unlisted file, what the file says of itself.
        path: where it lies; None where it is not here.
        place: label of that place; empty where it is not here.
    """

    entry: Entry
    state: State
    path: Path | None
    place: str


def cache_folder() -> Path:
    """Where downloaded and imported weights lie unless ``DEBLUR_WEIGHTS_DIR`` is set."""
    return platformdirs.user_cache_path("deblurcli", appauthor=False) / "weights"


def places() -> tuple[Place, ...]:
    """Where weights are looked for, in this order. Some of the folders may not exist."""
    found = []
    if own := os.environ.get("DEBLUR_WEIGHTS_DIR"):
        found.append(Place("DEBLUR_WEIGHTS_DIR", Path(own).expanduser()))
    found.append(Place("package", _PACKAGE / "_weights"))
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "weights" / MANIFEST_NAME).is_file():
        found.append(Place("checkout", checkout / "weights"))
    found.append(Place("cache", cache_folder()))
    return tuple(found)


def storage_folder() -> Path:
    """Where new weights go: ``DEBLUR_WEIGHTS_DIR`` if set, else the user's cache."""
    own = os.environ.get("DEBLUR_WEIGHTS_DIR")
    return Path(own).expanduser() if own else cache_folder()


def catalogue() -> Manifest:
    """The manifests of all places as one. Where names clash, what deblurcli ships wins; the
    default is that of the first place that names one.

    Raises:
        WeightsError: a manifest can't be understood.
    """
    manifests = [(place, read_manifest(place.folder)) for place in places()]
    entries: dict[str, Entry] = {}
    for _, manifest in sorted(manifests, key=lambda m: m[0].label not in SHIPPED):
        for entry in manifest.entries:
            entries.setdefault(entry.name, entry)
    default = next((m.default for _, m in manifests if m.default), DEFAULT_NAME)
    return Manifest(tuple(entries.values()), default)


def find(
    name_or_path: str | os.PathLike[str] = "default",
    *,
    offline: bool = False,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """The path of an intact weights file, downloaded first if it has to be.

    Args:
        name_or_path: a name from ``deblur weights list``, "default", or a path: something that
            ends in ``.safetensors``, holds a path separator, or is no known name but a file.
        offline: never download.
        progress: called with (bytes so far, bytes in all) while a download runs.
        patience: time limits and retries of a download.

    Returns:
        The path of a file whose sha256 is what the manifest says. A file that no manifest
        names, one's own training result say, is given out unchecked.

    Raises:
        WeightsError: the name is unknown, or the file is missing, damaged, or can't be had.
    """
    if _is_path(name_or_path):
        return _checked_path(Path(name_or_path))
    name = os.fspath(name_or_path)
    known = catalogue()
    if name == "default":
        name = known.default or DEFAULT_NAME
    entry = next((e for e in known.entries if e.name == name), None)
    if entry is None:
        return _find_unlisted(name, known)
    damaged: Path | None = None
    for place in places():
        path = place.folder / entry.file
        if path.is_file():
            if entry.matches(path):
                return path
            logger.warning("%s: damaged: its sha256 is not the manifest's; not used", path)
            damaged = path
    return _download(entry, damaged, offline=offline, progress=progress, patience=patience)


def listings() -> tuple[Listing, ...]:
    """All weights that a manifest names or that lie in one of the places.

    Hashes every file that is here.

    Raises:
        WeightsError: a manifest can't be understood.
    """
    known = catalogue()
    found = [_listing(entry) for entry in known.entries]
    seen = {entry.file for entry in known.entries}
    for place in places():
        for path in sorted(place.folder.glob(f"*{SUFFIX}")):
            if path.name in seen:
                continue
            seen.add(path.name)
            try:
                found.append(Listing(describe(path, name=path.stem), "unlisted", path, place.label))
            except (WeightsError, ValueError) as error:
                logger.warning("%s", error)
    return tuple(found)


def state_of(path: Path) -> State:
    """Whether the weights file at `path` is what the manifests say."""
    if not path.is_file():
        return "absent"
    entry = _entry_of(path)
    if entry is None:
        return "unlisted"
    return "intact" if entry.matches(path) else "damaged"


def _is_path(name_or_path: str | os.PathLike[str]) -> bool:
    if not isinstance(name_or_path, str):
        return True
    separators = {os.sep, os.altsep} - {None}
    return Path(name_or_path).suffix in (SUFFIX, ".pt", ".pth", ".zip", ".onnx") or any(
        str(separator) in name_or_path for separator in separators
    )


def _checked_path(path: Path) -> Path:
    path = path.expanduser()
    if path.is_dir():
        raise WeightsError(path, "a folder", "name the .safetensors file in it")
    if not path.is_file():
        raise WeightsError(path, "no such weights file", "see 'deblur weights list'")
    if path.suffix in (".pt", ".pth", ".zip"):
        raise WeightsError(
            path,
            "a PyTorch file; those are never loaded directly",
            f"import it once: deblur weights import {path.name}",
        )
    if state_of(path) == "damaged":
        raise WeightsError(
            path, "damaged: its sha256 is not the manifest's", "get it again: deblur weights pull"
        )
    return path


def _entry_of(path: Path) -> Entry | None:
    """What is said of the file at `path`: by the manifest beside it, or, where it lies in one
    of the places, by any of theirs."""
    beside = read_manifest(path.parent).entry_of_file(path.name)
    if beside is None and any(_same_folder(path.parent, place.folder) for place in places()):
        return catalogue().entry_of_file(path.name)
    return beside


def _same_folder(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _find_unlisted(name: str, known: Manifest) -> Path:
    """A file that is called after `name`, but of which no manifest knows the sha256."""
    for place in places():
        path = place.folder / f"{name}{SUFFIX}"
        if path.is_file():
            logger.warning("%s: in no manifest, so its sha256 can't be checked", path)
            return path
    if Path(name).is_file():
        return _checked_path(Path(name))
    names = ", ".join(entry.name for entry in known.entries) or "none"
    raise WeightsError(
        name, f"no weights of that name (known: {names})", "see 'deblur weights list'"
    )


def _listing(entry: Entry) -> Listing:
    damaged: tuple[Path, str] | None = None
    for place in places():
        path = place.folder / entry.file
        if path.is_file():
            if entry.matches(path):
                return Listing(entry, "intact", path, place.label)
            damaged = damaged or (path, place.label)
    if damaged:
        return Listing(entry, "damaged", *damaged)
    return Listing(entry, "absent", None, "")


def _sources(entry: Entry) -> Iterator[str]:
    """Where to get the file, best first. ``DEBLUR_WEIGHTS_URL`` names the file or its folder."""
    if own := os.environ.get("DEBLUR_WEIGHTS_URL"):
        if own.startswith(("http://", "https://", "file:")):
            url = urlsplit(own)
            folder = url.path.removesuffix("/")
            path = url.path if folder.endswith(SUFFIX) else f"{folder}/{entry.file}"
            yield url._replace(path=path).geturl()
        else:
            local = Path(own).expanduser()
            yield str(local / entry.file if local.is_dir() else local)
    yield from entry.sources


def _download(
    entry: Entry,
    damaged: Path | None,
    *,
    offline: bool,
    progress: Progress | None,
    patience: Patience | None,
) -> Path:
    missing = f"damaged ({damaged})" if damaged else "not here"
    if offline:
        raise WeightsError(
            entry.name,
            f"{missing}, and --offline forbids the download",
            f"while online: deblur weights pull {entry.name}",
        )
    sources = tuple(_sources(entry))
    if not sources:
        raise WeightsError(
            entry.name,
            f"{missing}, and no source to download it from is known",
            f"put {entry.file} into {storage_folder()}, or set DEBLUR_WEIGHTS_URL",
        )
    target = storage_folder() / entry.file
    return fetch(entry, sources, target, progress=progress, patience=patience)
