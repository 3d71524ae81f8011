"""The options that several commands share, each with one name, one help text, one meaning."""

from __future__ import annotations

from typing import Annotated

import typer

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def _check_device(value: str) -> str:
    kind, _, index = value.partition(":")
    if kind not in DEVICES or (":" in value and not (kind == "cuda" and index.isdecimal())):
        raise typer.BadParameter(f"{value!r} is not one of auto, cpu, cuda, cuda:1, mps")
    return value


def _check_precision(value: str) -> str:
    if value not in PRECISIONS:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(PRECISIONS)}")
    return value


def _check_tile(value: str) -> str:
    if value != "auto" and not value.isdecimal():
        raise typer.BadParameter(f"{value!r} is not auto, 0 or a number of pixels")
    return value


def tile_px(value: str) -> str | int:
    """The ``--tile`` option as `Deblurrer.load` takes it."""
    return value if value == "auto" else int(value)


Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="NAME|FILE",
        envvar="DEBLUR_WEIGHTS",
        help="Weights to use: a name from 'deblur weights list', or a file.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        envvar="DEBLUR_DEVICE",
        callback=_check_device,
        help="Where to compute.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="|".join(PRECISIONS),
        callback=_check_precision,
        help="Number format of the computation.",
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|PX|0",
        callback=_check_tile,
        help="Side of the tiles that large images are cut into; 0 never cuts.",
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        "--strength",
        metavar="0..1",
        min=0.0,
        max=1.0,
        help="How much of the change to apply: 0 none, 1 all.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out what is already done.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be written.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, show_default=False, help="Say more; -vv says all."),
]
