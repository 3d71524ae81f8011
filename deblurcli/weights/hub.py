"""Finding weights by name: here if they are here, else downloaded, and only if intact. Where they
are looked for says docs/weights.md. Neither torch nor anything that talks to the network is
imported until it has to be."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from deblurcli.errors import AnyPath, WeightsError, logger
from deblurcli.weights import manifest
from deblurcli.weights.download import ShowProgress, fetch
from deblurcli.weights.manifest import Entry, Manifest, ModelCard, read_manifest

DEFAULT_NAME = "compact"
SUFFIX = ".safetensors"
PACKAGE = Path(__file__).parents[1]
_DAMAGED = "damaged: its sha256 is not the manifest's"


@dataclass(frozen=True)
class Listing:
    """Weights, and the file of theirs that is here."""

    entry: Entry
    state: manifest.State
    path: Path | None = None  # None where it is not here
    place: str = ""  # label of that place; empty where it is not here, or was named by its path


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
    if all((checkout / file).is_file() for file in ("pyproject.toml", "weights/manifest.json")):
        found["checkout"] = checkout / "weights"
    return {**found, "cache": cache_folder()}


def storage_folder() -> Path:
    """Where new weights go: ``DEBLUR_WEIGHTS_DIR`` if set, else the user's cache."""
    there = places()
    return there.get("DEBLUR_WEIGHTS_DIR", there["cache"])


def catalogue() -> Manifest:
    """The manifests of all places as one. Where names clash, what deblurcli ships wins; the default
    is that of the first place that names one. Raises WeightsError if a manifest can't be
    understood, as all that look for weights do."""
    found = {label: read_manifest(folder) for label, folder in places().items()}
    entries: dict[str, Entry] = {}
    for label in sorted(found, key=lambda label: label not in ("package", "checkout")):
        entries = found[label].entries | entries
    return Manifest(entries, next((m.default for m in found.values() if m.default), DEFAULT_NAME))


def find(  # noqa: PLR0912 - from what is here to what has to be had
    weights: AnyPath = "default",
    *,
    offline: bool = False,
    show_progress: ShowProgress | None = None,
) -> Path:
    """The path of an intact weights file, downloaded first if it has to be, and never if `offline`.

    `weights` is a name from ``deblur weights list``, "default", or a path: something that ends in
    ``.safetensors`` or the like, or holds a path separator. A file that no manifest names, one's
    own training result say, is given out unchecked. Raises WeightsError if the name is unknown, or
    the file is missing, damaged, or can't be had.
    """
    listing = _look_up(weights)
    entry, path, name = listing.entry, listing.path, listing.entry.name
    if path is not None and listing.state != "damaged":
        if path.suffix in (".pt", ".zip"):
            reason = "a PyTorch file; those are never loaded directly"
            raise WeightsError(path, reason, f"import it once: deblur weights import {path.name}")
        if listing.place and listing.state == "unlisted":
            logger.warning("%s: in no manifest, so its sha256 can't be checked", path)
        return path
    if named := _as_path(weights):
        if named.is_dir():
            raise WeightsError(named, "a folder", "name the .safetensors file in it")
        if path is None:
            raise WeightsError(named, "no such weights file", "see 'deblur weights list'")
        raise WeightsError(named, _DAMAGED, "get it again: deblur weights pull")
    if not entry.sha256:
        reason = f"no weights of that name (known: {', '.join(catalogue().entries) or 'none'})"
        raise WeightsError(name, reason, "see 'deblur weights list'")
    missing = f"damaged ({path})" if path else "not here"
    if offline:
        reason = f"{missing}, and --offline forbids the download"
        raise WeightsError(name, reason, f"while online: deblur weights pull {name}")
    sources = list(entry.sources)
    if own := os.environ.get("DEBLUR_WEIGHTS_URL"):  # the file, or its folder
        url = urlsplit(own if "://" in own else Path(own).expanduser().absolute().as_uri())
        if not url.path.endswith(Path(entry.file).suffix):
            url = url._replace(path=f"{url.path.rstrip('/')}/{entry.file}")
        sources.insert(0, url.geturl())
    target = storage_folder() / entry.file
    if not sources:
        reason = f"{missing}, and no source to download it from is known"
        remedy = f"put {entry.file} into {target.parent}, or set DEBLUR_WEIGHTS_URL"
        raise WeightsError(name, reason, remedy)
    if target.suffix != SUFFIX:
        manifest.check_zoo(name)  # before the download, not after it
    fetch(target, sources, sha256=entry.sha256, size_bytes=entry.bytes, show_progress=show_progress)
    if target.suffix == SUFFIX:
        return target
    from deblurcli.weights.files import load_weights, save_published

    # A weights file takes the place of the checkpoint, and says whose work it is.
    converted, notes = target.with_name(name + SUFFIX), f"{entry.file}, {entry.page}"
    card = ModelCard(name=name, scores=entry.scores, licence=entry.licence, notes=notes)
    save_published(converted, load_weights(target)[0], card, overwrite=True)
    manifest.register(converted)
    target.unlink()
    credit = f"licence {entry.licence}, from {entry.page}; please cite: {entry.citation}"
    logger.warning("%s: %s", name, credit)
    return converted


def listings() -> tuple[Listing, ...]:
    """All weights that a manifest names or that lie in one of the places; hashes their files."""
    known = catalogue()
    files = [p for folder in places().values() for p in sorted(folder.glob(f"*{SUFFIX}"))]
    own = [path.stem for path in files if not known.entry_of_file(path.name)]
    return tuple(map(inspect, dict.fromkeys([*known.entries, *own])))


def inspect(weights: AnyPath) -> Listing:
    """What is known of weights, named as for `find`, and the state of their file here, which is
    hashed. A path's entry has that path as its name. What no manifest names describes itself."""
    listing = _look_up(weights)
    if listing.state != "unlisted" or listing.path is None:
        return listing
    try:
        entry = manifest.describe(listing.path)
        return replace(listing, entry=replace(entry, name=listing.entry.name))
    except WeightsError as error:
        logger.warning("%s", error)
        return replace(listing, state="damaged")


def _look_up(weights: AnyPath) -> Listing:
    """The first file that is not damaged, else the first. A path is looked for where it points."""
    if path := _as_path(weights):
        folders, entry = {"": path.parent}, None
        if path.is_file():
            entry = read_manifest(path.parent).entry_of_file(path.name)
            if not entry and path.parent.resolve() in map(Path.resolve, places().values()):
                entry = catalogue().entry_of_file(path.name)
        entry = replace(entry or Entry("", path.name), name=str(path))
    else:
        folders, known = places(), catalogue()
        name = str(known.default if weights == "default" else weights)
        entry = known.entries.get(name, Entry(name, name + SUFFIX))
    found = Listing(entry, "absent")
    for label, folder in folders.items():
        here = entry
        if not entry.file.endswith(SUFFIX):  # it was converted, and registered by the same name
            here = read_manifest(folder).entries.get(entry.name, entry)
        file = folder / here.file
        state = here.state_of(file)
        if state in ("intact", "unlisted"):
            return Listing(entry, state, file, label)
        if state == "damaged":
            if label:
                logger.warning("%s: %s; not used", file, _DAMAGED)
            if found.path is None:
                found = Listing(entry, state, file, label)
    return found


def _as_path(weights: AnyPath) -> Path | None:
    """The path that is meant, if it is no name."""
    path = Path(weights).expanduser()
    suffixes = (SUFFIX, ".pt", ".zip", ".onnx", *manifest.CHECKPOINT_SUFFIXES)
    is_name = isinstance(weights, str) and path.name == weights and path.suffix not in suffixes
    return None if is_name else path
