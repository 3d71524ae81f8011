"""Finding weights by name: here if they are here, else downloaded, and only if intact.

Where they are looked for says docs/weights.md. Other people's networks are published as PyTorch
checkpoints; they are converted to safetensors once, after the download.

This module imports neither torch nor anything that talks to the network until it has to.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import platformdirs

from deblurcli.errors import WeightsError, logger
from deblurcli.weights.download import RetryPolicy, ShowProgress, fetch
from deblurcli.weights.manifest import (
    CHECKPOINT_SUFFIXES,
    MANIFEST_NAME,
    Entry,
    Manifest,
    ModelCard,
    check_zoo,
    describe,
    read_manifest,
    register,
)

DEFAULT_NAME = "compact"
SUFFIX = ".safetensors"
PACKAGE = Path(__file__).parents[1]
_DAMAGED = "damaged: its sha256 is not the manifest's"

State = Literal["intact", "damaged", "absent", "unlisted"]
"""Of a weights file: its sha256 is right; is wrong; it is not here; no manifest names it."""


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
    path: Path | None = None
    place: str = ""


def cache_folder() -> Path:
    """Where downloaded and imported weights lie unless ``DEBLUR_WEIGHTS_DIR`` is set."""
    return platformdirs.user_cache_path("deblurcli", appauthor=False) / "weights"


def places() -> dict[str, Path]:
    """Where weights are looked for, by label, in this order. Some folders may not exist."""
    found = {}
    if own := os.environ.get("DEBLUR_WEIGHTS_DIR"):
        found["DEBLUR_WEIGHTS_DIR"] = Path(own).expanduser()
    found["package"] = PACKAGE / "_weights"
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "weights" / MANIFEST_NAME).is_file():
        found["checkout"] = checkout / "weights"
    found["cache"] = cache_folder()
    return found


def storage_folder() -> Path:
    """Where new weights go: ``DEBLUR_WEIGHTS_DIR`` if set, else the user's cache."""
    there = places()
    return there.get("DEBLUR_WEIGHTS_DIR", there["cache"])


def catalogue() -> Manifest:
    """The manifests of all places as one. Where names clash, what deblurcli ships wins; the
    default is that of the first place that names one.

    Raises:
        WeightsError: a manifest can't be understood.
    """
    manifests = {label: read_manifest(folder) for label, folder in places().items()}
    entries: dict[str, Entry] = {}
    for label in sorted(manifests, key=lambda label: label not in ("package", "checkout")):
        for entry in manifests[label].entries:
            entries.setdefault(entry.name, entry)
    default = next((m.default for m in manifests.values() if m.default), DEFAULT_NAME)
    return Manifest(tuple(entries.values()), default)


def find(
    name_or_path: str | os.PathLike[str] = "default",
    *,
    offline: bool = False,
    show_progress: ShowProgress | None = None,
    retry: RetryPolicy | None = None,
) -> Path:
    """The path of an intact weights file, downloaded first if it has to be.

    Args:
        name_or_path: a name from ``deblur weights list``, "default", or a path: something that
            ends in ``.safetensors``, holds a path separator, or is no known name but a file.
        offline: never download.
        show_progress: gives the bar that shows a download.
        retry: time limits and retries of a download.

    Returns:
        The path of a file whose sha256 is what the manifest says. A file that no manifest
        names, one's own training result say, is given out unchecked.

    Raises:
        WeightsError: the name is unknown, or the file is missing, damaged, or can't be had.
    """
    name = os.fspath(name_or_path)
    if (
        not isinstance(name_or_path, str)
        or Path(name).suffix in (SUFFIX, ".pt", ".zip", ".onnx", *CHECKPOINT_SUFFIXES)
        or any(separator in name for separator in (os.sep, os.altsep) if separator)
    ):
        return _check_path(Path(name).expanduser())
    known = catalogue()
    name = known.default or DEFAULT_NAME if name == "default" else name
    entry = next((entry for entry in known.entries if entry.name == name), None)
    if entry is None:
        for path in (*(folder / f"{name}{SUFFIX}" for folder in places().values()), Path(name)):
            if path.is_file():
                logger.warning("%s: in no manifest, so its sha256 can't be checked", path)
                return path
        names = ", ".join(entry.name for entry in known.entries) or "none"
        reason = f"no weights of that name (known: {names})"
        raise WeightsError(name, reason, "see 'deblur weights list'")
    listing = _locate(entry)
    if listing.state == "intact" and listing.path is not None:
        return listing.path
    missing = f"damaged ({listing.path})" if listing.path else "not here"
    if offline:
        reason = f"{missing}, and --offline forbids the download"
        raise WeightsError(name, reason, f"while online: deblur weights pull {name}")
    sources = list(entry.sources)
    if own := os.environ.get("DEBLUR_WEIGHTS_URL"):  # the file, or its folder
        if own.startswith(("http://", "https://", "file:")):
            url = urlsplit(own)
            if not url.path.rstrip("/").endswith(Path(entry.file).suffix):
                url = url._replace(path=f"{url.path.rstrip('/')}/{entry.file}")
            sources.insert(0, url.geturl())
        else:
            local = Path(own).expanduser()
            sources.insert(0, str(local / entry.file if local.is_dir() else local))
    if not sources:
        reason = f"{missing}, and no source to download it from is known"
        remedy = f"put {entry.file} into {storage_folder()}, or set DEBLUR_WEIGHTS_URL"
        raise WeightsError(name, reason, remedy)
    if not entry.file.endswith(SUFFIX):
        check_zoo(name)  # before the download, not after it
    downloaded = fetch(
        storage_folder() / entry.file,
        sources,
        sha256=entry.sha256,
        size_bytes=entry.bytes or None,
        show_progress=show_progress,
        retry=retry,
    )
    return downloaded if entry.file.endswith(SUFFIX) else _convert(downloaded, entry)


def _convert(checkpoint: Path, entry: Entry) -> Path:
    """Puts a weights file in place of a published checkpoint, and says whose work it is."""
    from deblurcli.weights.files import import_foreign

    target = checkpoint.with_name(entry.name + SUFFIX)
    notes = f"{entry.file}, {entry.page}"
    card = ModelCard(name=entry.name, scores=entry.scores, licence=entry.licence, notes=notes)
    import_foreign(checkpoint, target, card, overwrite=True)
    register(target, name=entry.name)
    checkpoint.unlink()
    credit = f"licence {entry.licence}, from {entry.page}; please cite: {entry.citation}"
    logger.warning("%s: %s", entry.name, credit)
    return target


def listings() -> tuple[Listing, ...]:
    """All weights that a manifest names or that lie in one of the places.

    Hashes every file that is here.

    Raises:
        WeightsError: a manifest can't be understood.
    """
    known = catalogue()
    found = [_locate(entry) for entry in known.entries]
    seen = {file for entry in known.entries for file in (entry.file, entry.name + SUFFIX)}
    for label, folder in places().items():
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.name in seen:
                continue
            seen.add(path.name)
            try:
                found.append(Listing(describe(path, name=path.stem), "unlisted", path, label))
            except WeightsError as error:
                logger.warning("%s", error)
    return tuple(found)


def state_of(path: Path) -> State:
    """Whether the weights file at `path` is what the manifest beside it says, or, where it lies
    in one of the places, any of theirs."""
    if not path.is_file():
        return "absent"
    entry = read_manifest(path.parent).entry_of_file(path.name)
    if entry is None and path.parent.resolve() in map(Path.resolve, places().values()):
        entry = catalogue().entry_of_file(path.name)
    if entry is None:
        return "unlisted"
    return "intact" if entry.matches(path) else "damaged"


def _check_path(path: Path) -> Path:
    if path.is_dir():
        raise WeightsError(path, "a folder", "name the .safetensors file in it")
    if path.suffix in (".pt", ".zip") and path.is_file():
        reason = "a PyTorch file; those are never loaded directly"
        raise WeightsError(path, reason, f"import it once: deblur weights import {path.name}")
    state = state_of(path)
    if state == "absent":
        raise WeightsError(path, "no such weights file", "see 'deblur weights list'")
    if state == "damaged":
        raise WeightsError(path, _DAMAGED, "get it again: deblur weights pull")
    return path


def _locate(entry: Entry) -> Listing:
    """Where the entry's file is: the first intact one, else the first that is damaged."""
    found = Listing(entry, "absent")
    for label, folder in places().items():
        file = entry
        if not entry.file.endswith(SUFFIX):  # it was converted, and registered by the same name
            own = read_manifest(folder).entries
            file = next((e for e in own if e.name == entry.name and e != entry), entry)
        path = folder / file.file
        if path.is_file() and path.suffix == SUFFIX:
            if file.matches(path):
                return Listing(entry, "intact", path, label)
            logger.warning("%s: %s; not used", path, _DAMAGED)
            if found.path is None:
                found = Listing(entry, "damaged", path, label)
    return found
