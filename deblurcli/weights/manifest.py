"""The manifest of a folder of weights, and what weights files say of themselves, without PyTorch.

``manifest.json`` says which files there are, and how to tell that they are intact.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from safetensors import SafetensorError, safe_open

from deblurcli.errors import AnyPath, UsageError, WeightsError, not_installed
from deblurcli.io.files import atomic_output

T = TypeVar("T")

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
CHECKPOINT_SUFFIXES = (".pth", ".ckpt")  # of files with other people's networks
METADATA_KEY = "deblurcli"  # of the JSON document in a weights file's metadata
# Of that document: 2 renamed the convolutions of the blocks, 3 may hold networks of others.
WEIGHTS_VERSION = 3
# Of graphs for ONNX Runtime; to be raised when the same configuration computes differently.
GRAPH_VERSION = 1
State = Literal["intact", "damaged", "absent", "unlisted"]
"""Of a weights file: its sha256 is right; is wrong; it is not here; no manifest names it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# What reading a document raises that is not what it should be.
_WRONG_JSON = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself."""

    name: str = "unnamed"
    training_data: tuple[str, ...] = ()  # the data sets, with their licences
    recipe: dict[str, object] = field(default_factory=dict)  # the values of the training recipe
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # as of an `Entry`
    licence: str = "unknown"  # SPDX identifier of the weights
    notes: str = ""  # anything else: machine, training time, limits

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ModelCard":
        """Raises TypeError if the fields are others."""
        return cls(**{**fields, "training_data": tuple(fields.get("training_data", ()))})


class NetworkFacts(TypedDict, total=False):
    """What a manifest says of a network, to show: its body, levels, parameters, GMACs at 256²."""

    body: str
    scales: int
    parameters: int
    gmacs: float


@dataclass(frozen=True)
class Entry:
    """What a manifest says of one weights file."""

    name: str  # what users give to --weights
    file: str  # its name in its folder, without any path
    sha256: str = ""  # of the whole file, 64 lower-case hex digits; empty: no manifest says it
    bytes: int = 0  # 0 where it is not known
    network: NetworkFacts = field(default_factory=NetworkFacts)
    licence: str = "unknown"  # SPDX identifier
    # Set name to figures, for example {"gopro/test": {"psnr_db": 25.1}}.
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()  # URLs of the file, tried in this order
    page: str = ""  # where the file's authors present it
    citation: str = ""  # how they want to be cited

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([0-9a-f]{64})?", self.sha256):
            raise ValueError(f"not a sha256 of 64 lower-case hex digits: {self.sha256!r}")
        if type(self.bytes) is not int or self.bytes < 0:
            raise ValueError(f"not a number of bytes: {self.bytes!r}")
        # They are printed: nobody's terminal is to obey them.
        if not all(type(text) is str and text.isprintable() for text in (self.licence, self.page)):
            raise ValueError("a licence or page with control characters")

    def state_of(self, path: Path) -> State:
        """Whether the file at `path` is this entry's, byte for byte."""
        if not path.is_file():
            return "absent"
        if not self.sha256:
            return "unlisted"
        with suppress(OSError):
            if sha256_of(path) == self.sha256:
                return "intact"
        return "damaged"


@dataclass(frozen=True)
class Manifest:
    """Entries by name, and the name that "default" stands for."""

    entries: dict[str, Entry] = field(default_factory=dict)
    default: str | None = None

    def entry_of_file(self, file_name: str) -> Entry | None:
        return next((e for e in self.entries.values() if e.file == file_name), None)


def check_name(name: str) -> None:
    """Raises UsageError for a name that no manifest may hold. Names become file names and parts
    of URLs: one with a path in it could point anywhere."""
    if not _NAME.fullmatch(name):
        raise UsageError(name, "not a name for weights", "use letters, digits, '.', '-' and '_'")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`, empty if there is none. Raises WeightsError if it is damaged."""
    path = folder / MANIFEST_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format", FORMAT_VERSION) > FORMAT_VERSION:
            raise WeightsError(path, "made by a newer deblurcli", "update deblurcli")
        entries = {}
        for fields in document["weights"]:
            fields.pop("packaged", None)  # older versions wrote it
            entry = Entry(**{**fields, "sources": tuple(fields.get("sources", ()))})
            if not (_NAME.fullmatch(entry.name) and _NAME.fullmatch(entry.file) and entry.sha256):
                named = f"{entry.name!r}, {entry.file!r}"
                raise ValueError(f"not a plain name, or no sha256: {named}")
            entries[entry.name] = entry
        return Manifest(entries, document.get("default"))
    except (FileNotFoundError, NotADirectoryError):
        return Manifest()
    except (OSError, *_WRONG_JSON) as error:
        reason = f"not a manifest of weights ({error})"
        raise WeightsError(path, reason, "repair it, or take it away") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest.json`` into `folder`, in place of an older one, or raises DeblurError."""
    default = {} if manifest.default is None else {"default": manifest.default}
    entries = [asdict(entry) for entry in manifest.entries.values()]
    document = {"format": FORMAT_VERSION, **default, "weights": entries}
    with atomic_output(folder / MANIFEST_NAME, overwrite=True) as part:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        part.write_text(text, encoding="utf-8")


def register(
    path: Path, *, sources: tuple[str, ...] = (), gmacs: float | None = None, default: bool = False
) -> Entry:
    """Writes what the manifest beside a weights file should say of it, now: `sources`, else those
    that an older entry of the same file has; the network's `gmacs`, where they were counted, as its
    model card has those of others only; and whether it is the manifest's default. Raises
    WeightsError or UsageError if `path` is no weights file or no manifest can hold its name,
    DeblurError if the manifest can't be written."""
    manifest, entry = read_manifest(path.parent), describe(path)
    check_name(entry.name)
    old = manifest.entry_of_file(path.name)
    entry = replace(entry, sources=sources or (old.sources if old else ()))
    if gmacs is not None:
        entry.network["gmacs"] = round(gmacs, 2)
    updated = [entry if e is old else e for e in manifest.entries.values()]
    entries = {e.name: e for e in (*updated, entry)}
    write_manifest(path.parent, Manifest(entries, entry.name if default else manifest.default))
    return entry


def describe(path: Path) -> Entry:
    """What a manifest would say of a weights file: what the file says of itself, and its size and
    hash. Its name is the file's without the suffix, be it one that no manifest may hold. Raises
    WeightsError if `path` is missing or is not a weights file of deblurcli."""
    config, card = read_header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        network = NetworkFacts(body=config["body"], parameters=sum(map(math.prod, shapes)))
        if "scales" in config:
            network["scales"] = config["scales"]
        elif config["gmacs"] is not None:
            network["gmacs"] = float(config["gmacs"])
        sha256, size = sha256_of(path), path.stat().st_size
        return Entry(path.stem, path.name, sha256, size, network, card.licence, card.scores)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, error) from error


def read_header(path: AnyPath) -> tuple[dict[str, Any], ModelCard]:
    """The configuration of a weights file's network as JSON, and its model card, without its
    parameters. Raises WeightsError if the file is missing, damaged, or not one of ours."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if METADATA_KEY not in metadata:
            reason = "a safetensors file, but not of deblurcli: it doesn't say for which network"
            remedy = "give weights that 'deblur train' or 'deblur weights import' wrote"
            raise WeightsError(path, reason, remedy)
        document = json.loads(metadata[METADATA_KEY])
        if document["format"] > WEIGHTS_VERSION:
            raise WeightsError(path, "made by a newer deblurcli", "update deblurcli")
        return dict(document["network"]), ModelCard.from_json(document["card"])
    except FileNotFoundError:
        raise WeightsError(path, "no such weights file", "see 'deblur weights list'") from None
    except (SafetensorError, OSError, *_WRONG_JSON) as error:
        raise damaged(path, error) from error


def check_zoo(subject: AnyPath) -> None:
    """Raises WeightsError where spandrel, which knows other people's networks, is missing."""
    if find_spec("spandrel") is None:
        raise not_installed(subject, "spandrel", "zoo", WeightsError)


def current_names(parameters: Mapping[str, T]) -> dict[str, T]:
    """A network's parameters as they are called today, whichever version named them."""
    now = {"first": "conv1", "second": "conv2"}
    return {".".join(now.get(w, w) for w in name.split(".")): v for name, v in parameters.items()}


def graph_name(network: dict[str, Any]) -> str:
    """The file with the ONNX graph of all networks of a configuration, as weights files hold it."""
    text = json.dumps([GRAPH_VERSION, network], sort_keys=True)
    return f"{network['body']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.onnx"


def damaged(path: AnyPath, error: Exception) -> WeightsError:
    """Makes the error for a file that is no intact weights file."""
    detail = "what it says of its network makes none"
    if isinstance(error, SafetensorError | OSError):
        detail = str(error).partition("\n")[0] or type(error).__name__
    remedy = "get it again, a published one with 'deblur weights pull'"
    return WeightsError(path, f"damaged or not a weights file ({detail})", remedy)


def sha256_of(path: Path) -> str:
    """The file's sha256 in 64 hex digits. About 0.1 s for 50 MB."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
