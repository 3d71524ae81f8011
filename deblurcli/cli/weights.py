"""``deblur weights``: what there is, what is here, is it intact; getting, importing, exporting."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from deblurcli.cli import console, options
from deblurcli.cli.options import REQUIRED, argument, option
from deblurcli.errors import UsageError, WeightsError, cannot_write
from deblurcli.io.files import check_target
from deblurcli.weights import hub, manifest
from deblurcli.weights.download import fetch
from deblurcli.weights.manifest import ModelCard, read_manifest

if TYPE_CHECKING:
    from deblurcli.models.network import RestorationNetwork

app = console.make_group("List, get, check, import and export weights.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="A name from 'deblur weights list', or a file.",
        autocompletion=options.complete_weights,
    ),
]
Licence = Annotated[str, typer.Option(help="Its licence, if you know it.", metavar="SPDX")]


@options.command(app, "list")
def list_weights(*, json: options.Json = False) -> None:
    """Shows what there is and what is here.

    The name with a star is what --weights default stands for. STATE is intact (its sha256 is
    right), damaged (it is wrong; such a file is never used), absent, or unlisted (no manifest
    knows its sha256, as of a file of your own).
    """
    default, found = hub.catalogue().default, hub.listings()
    document, below = [], [""]
    table = [("NAME", "NETWORK", "GMACS", "SIZE", "STATE", "LICENCE")]
    for listing in found:
        entry, network = listing.entry, listing.entry.network
        is_default, path = entry.name == default, str(listing.path) if listing.path else None
        here = {"state": listing.state, "place": listing.place or None, "path": path}
        document.append({**asdict(entry), "default": is_default, **here})
        levels = f", K={network['scales']}" if "scales" in network else ""
        body = f"{network.get('body', '?')}{levels}, {network.get('parameters', 0) / 1e6:.2f} M"
        gmacs = f"{network['gmacs']:.1f}" if "gmacs" in network else "-"
        size = f"{entry.bytes / 1e6:.1f} MB" if entry.bytes else "-"
        name = f"{entry.name} *" if is_default else entry.name
        table.append((name, body, gmacs, size, listing.state, entry.licence))
        pull_it = f"not here; get it: deblur weights pull {entry.name}"
        lines = [path or pull_it] if path or entry.sources else []
        scores = ((name, scores.get("psnr_db")) for name, scores in entry.scores.items())
        lines += [f"{psnr_db:.2f} dB  {name}" for name, psnr_db in scores if psnr_db is not None]
        below.append("".join(f"\n    {line}" for line in lines))
    if json:
        console.print_json(document)
    else:
        rows = zip(align(table), below, strict=True)
        console.print_lines("\n".join(row + more for row, more in rows))


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table with its columns below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


@options.command(app, "pull")
def pull(
    *,
    wanted: list[str] | None = argument(
        "NAME", "Names; the default if none.", None, autocompletion=options.complete_weights
    ),
    offline: options.Offline = False,
    json: options.Json = False,
) -> None:
    """Downloads what is not here yet; prints where it lies."""
    found = {
        name: str(hub.find(name, offline=offline, show_progress=console.show_download))
        for name in wanted or ["default"]
    }
    document = [{"name": name, "path": path} for name, path in found.items()]
    console.print_result("\n".join(found.values()), document, json=json)


@options.command(app, "path")
def path(*, name: Name = "default", json: options.Json = False) -> None:
    """Prints where intact weights lie; downloads nothing."""
    found = hub.find(name, offline=True)
    console.print_result(found, {"name": name, "path": str(found)}, json=json)


@options.command(app, "verify")
def verify(
    *,
    wanted: list[str] | None = argument(
        "NAME|FILE", "Names; else all that are here.", None, autocompletion=options.complete_weights
    ),
    json: options.Json = False,
) -> int:
    """Checks files byte for byte; exit code 4 if one is wrong.

    What is compared is the sha256 that the manifest gives for the file.
    """
    found = list(map(hub.inspect, wanted)) if wanted else [f for f in hub.listings() if f.path]
    rows = [{"name": f.entry.name, "state": f.state, "path": f.path and str(f.path)} for f in found]
    if json:
        console.print_json(rows)
    elif rows:
        cells = [[str(value or "") for value in row.values()] for row in rows]
        console.print_lines("\n".join(align(cells)))
    else:
        console.say("no weights are here; get some with 'deblur weights pull'")
    return 0 if all(f.state in ("intact", "unlisted") for f in found) else WeightsError.exit_code


@options.command(app, "add")
def add_weights(
    *,
    source: str = argument("URL|FILE", "A checkpoint (.pth, .ckpt) or a .safetensors."),
    name: str = option(REQUIRED, "What to call it.", "NAME"),
    sha256: str | None = option(None, "What it must have.", "HASH"),
    licence: Licence = "unknown",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Takes in a network, of deblurcli or others, for --weights.

    Of others are restoration networks that spandrel knows: NAFNet, Restormer, FFTformer and more,
    at scale 1. Nothing in the file is executed. Without --sha256 it is taken as it comes; from
    then on it is only used while it stays as it is.
    """
    target = place_for(name, overwrite=overwrite)
    suffix = Path(urlsplit(source).path).suffix
    is_foreign = suffix in manifest.CHECKPOINT_SUFFIXES
    if is_foreign:
        manifest.check_zoo(source)
    elif suffix != hub.SUFFIX:
        remedy = "give a .pth, .ckpt or .safetensors; for DeepDeblur-PyTorch: deblur weights import"
        raise UsageError(source, "not a file that can be added", remedy)
    incoming = target.with_name(f".{name}{suffix}")
    known = sha256.lower() if sha256 else None
    try:
        fetch(incoming, [source], sha256=known, show_progress=console.show_download)
        from deblurcli.weights.files import load_weights

        network, card = load_weights(incoming)
    finally:
        incoming.unlink(missing_ok=True)
    if is_foreign:
        card = ModelCard(name=name, licence=licence, notes=f"from {source}")
    keep(network, card, target, name, overwrite=True, json=json)


@options.command(app, "import")
def import_weights(
    *,
    file: Path = argument("FILE", "A DeepDeblur-PyTorch model-N.pt, or its zip archive."),
    name: str = option("deepdeblur", "What to call them for --weights.", "NAME"),
    output: Path | None = option(
        None, "Write here instead of where --weights NAME finds it.", "FILE.safetensors", "-o"
    ),
    licence: Licence = "unknown",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Imports a checkpoint that the paper's authors publish.

    It becomes a safetensors file for --weights. Nothing in the file is executed. The imported
    network gives the same output as the original.
    """
    target = output or place_for(name, overwrite=overwrite)
    from deblurcli.weights.import_deepdeblur import read_published

    recipe: dict[str, object] = {"imported_from": file.name, "format": "DeepDeblur-PyTorch"}
    notes = "Published by the paper's authors, imported by deblurcli."
    card = ModelCard(name=name, recipe=recipe, licence=licence, notes=notes)
    by_name = None if output else name
    keep(read_published(file), card, target, by_name, overwrite=overwrite, json=json)


def keep(
    network: "RestorationNetwork",
    card: ModelCard,
    target: Path,
    name: str | None,
    *,
    overwrite: bool,
    json: bool,
) -> None:
    """Writes new weights, registers those that have a name, and says how they are used."""
    from deblurcli.weights.files import save_published

    save_published(target, network, card, overwrite=overwrite)
    entry = manifest.register(target) if name else manifest.describe(target)
    console.print_result(target, {**asdict(entry), "path": str(target)}, json=json)
    console.note(f"use it: deblur photo.jpg --weights {name or target}")


def place_for(name: str, *, overwrite: bool) -> Path:
    """The file that ``--weights NAME`` will find, in a folder that exists. Raises UsageError for
    the name of other weights or no name, WeightsError if the folder can't be made."""
    manifest.check_name(name)
    target = hub.storage_folder() / f"{name}{hub.SUFFIX}"
    taken = name in hub.catalogue().entries and name not in read_manifest(target.parent).entries
    if taken or name == "default":
        raise UsageError(name, "the name of other weights", "give another --name")
    if target.exists() and not overwrite:
        remedy = "give another --name, or --overwrite"
        raise UsageError(name, "weights of that name are here", remedy)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = "set DEBLUR_WEIGHTS_DIR to a folder that you may write to, or give -o"
        raise cannot_write(target.parent, error, remedy, error_class=WeightsError) from error
    return target


@options.command(app, "export")
def export_weights(
    *,
    name: Name,
    target: Path = argument("FILE.onnx", "The file to write."),
    overwrite: options.Overwrite = False,
    offline: options.Offline = False,
    json: options.Json = False,
) -> None:
    """Writes an ONNX model for other runtimes.

    Input "blurred" and output "sharp" are (batch, 3, height, width) float32 in [0, 1], of any
    size. The model is checked against PyTorch before the file gets its name.
    """
    if target.suffix != ".onnx":
        raise UsageError(target, "not a name of an ONNX file", "end it in .onnx")
    check_target(target, overwrite=overwrite, remedy="give another name, or --overwrite")
    source = hub.find(name, offline=offline, show_progress=console.show_download)
    from deblurcli.weights.export_onnx import export_onnx
    from deblurcli.weights.files import load_weights

    console.note("exporting and checking; this can take a minute")
    difference = export_onnx(*load_weights(source), target, overwrite=overwrite)
    document = {"path": str(target), "largest_difference": difference}
    console.print_result(target, document, json=json)
    console.note(f"differs from PyTorch by at most {difference:.1g} of the full range")


@options.command(app, "register")
def register_weights(
    *,
    file: Path = argument("FILE.safetensors"),
    source: list[str] | None = option(None, "Where to download it; repeatable, best first.", "URL"),
    default: bool = option(False, "Make it the folder's default."),
    json: options.Json = False,
) -> None:
    """Writes a file's entry in the manifest beside it, for a release.

    From then on the file is only used while its sha256 is what it is now. Its name is the file's;
    network, scores and licence are taken from the file itself.
    """
    if file.parent.resolve() == hub.storage_folder().resolve():
        known = hub.catalogue().entries.get(file.stem)
        own = read_manifest(file.parent).entries.get(file.stem)
        # It would never be found by a name that is shipped, unless it is a copy of just that.
        if known and not own and known.state_of(file) == "damaged":
            raise UsageError(file.stem, "the name of other weights", "rename the file")
    from deblurcli.models.network import count_gmacs
    from deblurcli.weights.files import load_weights

    gmacs = count_gmacs(load_weights(file)[0])
    entry = manifest.register(file, sources=tuple(source or ()), gmacs=gmacs, default=default)
    console.print_result(f"{entry.name}  {entry.sha256}", asdict(entry), json=json)
    if default:
        console.say(f"--weights default is now {hub.catalogue().default}")
