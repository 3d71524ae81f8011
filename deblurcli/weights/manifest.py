"""The manifest of a folder of weights: which files there are, and how to tell that they are intact.

``manifest.json`` lies beside the files it speaks of:

    {"format": 1,
     "default": "compact",
     "weights": [{"name": "compact", "file": "compact.safetensors",
                  "sha256": "…64 hex digits…", "bytes": 4321000,
                  "network": {"body": "unet", "scales": 3, "parameters": 2100000},
                  "licence": "MIT",
                  "scores": {"gopro/test": {"psnr_db": 25.1}},
                  "sources": ["https://…/compact.safetensors"],
                  "packaged": true}]}

``sources`` are tried in order when the file is not here; an entry without any can't be
downloaded. ``packaged`` says that the installed package carries the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from deblurcli.errors import UsageError, WeightsError
from deblurcli.io.files import atomic_output

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_MAX_HEADER_BYTES = 100_000_000  # as safetensors itself has it


class NetworkFacts(TypedDict, total=False):
    """What a manifest says of a network, to show: its body, levels, parameters, GMACs at 256²."""

    body: str
    scales: int
    parameters: int
    gmacs: float


@dataclass(frozen=True)
class Entry:
    """What a manifest says of one weights file.

    Attributes:
        name: what users give to ``--weights``.
        file: the file's name in its folder, without any path.
        sha256: of the whole file, 64 lower-case hex digits.
        bytes: size of the file; 0 where it is not known.
        network: facts to show.
        licence: SPDX identifier of the weights.
        scores: set name to figures.
        sources: URLs of the file, best first.
        packaged: whether the installed package carries it.
        page: where the file's authors present it.
        citation: how they want to be cited.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    network: NetworkFacts = field(default_factory=NetworkFacts)
    licence: str = "unknown"
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    packaged: bool = False
    page: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"not a sha256 of 64 lower-case hex digits: {self.sha256!r}")
        if type(self.bytes) is not int or self.bytes < 0:
            raise ValueError(f"not a number of bytes: {self.bytes!r}")
        # They are printed: nobody's terminal is to obey them.
        if not all(type(text) is str and text.isprintable() for text in (self.licence, self.page)):
            raise ValueError("a licence or page with control characters")

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` is this entry's, byte for byte."""
        try:
            size = path.stat().st_size
            return size == (self.bytes or size) and sha256_of(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Manifest:
    """The entries of one folder and the name that "default" stands for there."""

    entries: tuple[Entry, ...] = ()
    default: str | None = None

    def entry_of_file(self, file_name: str) -> Entry | None:
        return next((e for e in self.entries if e.file == file_name), None)


def check_name(name: str) -> None:
    """Raises UsageError for a name that no manifest may hold. Names become file names and parts
    of URLs: one with a path in it could point anywhere."""
    if not _NAME.fullmatch(name):
        raise UsageError(name, "not a name for weights", "use letters, digits, '.', '-' and '_'")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`; an empty one where there is none.

    Raises:
        WeightsError: ``manifest.json`` is there but can't be read or understood.
    """
    path = folder / MANIFEST_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format", FORMAT_VERSION) > FORMAT_VERSION:
            remedy = "update: pip install -U deblurcli"
            raise WeightsError(path, "made by a newer deblurcli", remedy)
        entries = tuple(
            Entry(**{**fields, "sources": tuple(fields.get("sources", ()))})
            for fields in document["weights"]
        )
        for entry in entries:
            if not _NAME.fullmatch(entry.name) or not _NAME.fullmatch(entry.file):
                raise ValueError(f"not a plain name: {entry.name!r}, {entry.file!r}")
        return Manifest(entries, document.get("default"))
    except (FileNotFoundError, NotADirectoryError):
        return Manifest()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(
            path, f"not a manifest of weights ({error})", "repair it, or take it away"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest.json`` into `folder`, in place of an older one.

    Raises:
        DeblurError: it can't be written.
    """
    default = {} if manifest.default is None else {"default": manifest.default}
    entries = [asdict(entry) for entry in manifest.entries]
    document = {"format": FORMAT_VERSION, **default, "weights": entries}
    with atomic_output(folder / MANIFEST_NAME, overwrite=True) as part:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        part.write_text(text, encoding="utf-8")


def register(
    path: Path,
    *,
    name: str | None = None,
    sources: tuple[str, ...] | None = None,
    packaged: bool | None = None,
    default: bool = False,
) -> Entry:
    """Writes what the manifest beside a weights file should say of it, now.

    Network, scores and licence come from the model card inside the file; hash and size are
    measured. What is None stays as an older entry of the same file had it.

    Args:
        path: the weights file.
        name: by default the file's name without its suffix.
        default: make it the folder's default.

    Raises:
        WeightsError: `path` is missing or is not a weights file of deblurcli.
        UsageError: a manifest can't hold that name.
        DeblurError: the manifest can't be written.
    """
    manifest = read_manifest(path.parent)
    old = manifest.entry_of_file(path.name)
    entry = describe(path, name=name or (old.name if old else path.stem))
    if old:
        entry = replace(entry, sources=old.sources, packaged=old.packaged)
        if "gmacs" in old.network and old.network["body"] == entry.network["body"]:
            entry = replace(entry, network={**entry.network, "gmacs": old.network["gmacs"]})
    if sources is not None:
        entry = replace(entry, sources=sources)
    if packaged is not None:
        entry = replace(entry, packaged=packaged)
    check_name(entry.file)
    check_name(entry.name)
    kept = (e for e in manifest.entries if entry.name != e.name and entry.file != e.file)
    chosen = entry.name if default else manifest.default
    write_manifest(path.parent, Manifest((*kept, entry), chosen))
    return entry


def describe(path: Path, *, name: str) -> Entry:
    """What a manifest would say of the weights file at `path`, from the file itself; its name
    need not be one that a manifest may hold.

    Raises:
        WeightsError: `path` is missing or is not a weights file of deblurcli.
    """
    header = read_header(path)
    try:
        document = json.loads(header["__metadata__"]["deblurcli"])
        config, card = document["network"], document["card"]
        parameters = sum(math.prod(v["shape"]) for k, v in header.items() if k != "__metadata__")
        network = NetworkFacts(body=config["body"], parameters=parameters)
        if "scales" in config:
            network["scales"] = config["scales"]
        elif config["gmacs"] is not None:
            network["gmacs"] = float(config["gmacs"])
        return Entry(
            name=name,
            file=path.name,
            sha256=sha256_of(path),
            bytes=path.stat().st_size,
            network=network,
            licence=card.get("licence", "unknown"),
            scores=card.get("scores", {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(
            path,
            "a safetensors file, but not of deblurcli",
            "give weights that 'deblur train' or 'deblur weights import' wrote",
        ) from error


def read_header(path: Path) -> Mapping[str, Any]:
    """The header of a safetensors file, read without torch: a length, then that much JSON.

    Raises:
        WeightsError: `path` is missing or is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError("no safetensors header")
            header = json.loads(file.read(length))
        tensors = (value for key, value in header.items() if key != "__metadata__")
        end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        if 8 + length + end != size:
            raise ValueError("truncated, or something was added")
        return dict(header)
    except FileNotFoundError:
        raise WeightsError(path, "no such weights file", "see 'deblur weights list'") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WeightsError(
            path, "damaged or not a safetensors file", "get it again: deblur weights pull"
        ) from error


def sha256_of(path: Path) -> str:
    """The file's sha256 in 64 hex digits. About 0.1 s for 50 MB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
