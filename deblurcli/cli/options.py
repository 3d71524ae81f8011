"""The options that several commands share, each with one name, one help text, one meaning."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

import typer

from deblurcli.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def _check_device(value: str) -> str:
    kind, _, index = value.partition(":")
    if kind not in DEVICES or (":" in value and not (kind == "cuda" and index.isdecimal())):
        raise typer.BadParameter(f"{value!r} is not one of auto, cpu, cuda, cuda:1, mps")
    return value


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """The check of an option that takes one of a few words."""

    def check(value: str) -> str:
        if value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
        return value

    return check


def _check_tile(value: str) -> str:
    if value != "auto" and not value.isdecimal():
        raise typer.BadParameter(f"{value!r} is not auto, 0 or a number of pixels")
    return value


def _check_fps(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1000:
        raise typer.BadParameter(f"{value:g} is not more than 0 and at most 1000")
    return value


def refuse_contradiction(*, overwrite: bool, skip_existing: bool) -> None:
    """Raises UsageError where both are asked for."""
    if overwrite and skip_existing:
        raise UsageError("--overwrite", "contradicts --skip-existing", "give one of them")


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
        callback=one_of(PRECISIONS),
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


def seconds(text: str) -> float:
    """A time as people write it: ``90``, ``90.5``, ``1:30`` or ``0:01:30.5``."""
    parts = text.split(":")
    try:
        if len(parts) > 3 or any(part.strip() != part for part in parts):
            raise ValueError
        numbers = [float(part) for part in parts]
        if not all(number >= 0 and number < float("inf") for number in numbers):
            raise ValueError
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 90.5 or 1:30") from None
    return sum(number * 60.0**power for power, number in enumerate(reversed(numbers)))


def shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8)."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise typer.BadParameter(f"{text!r} is no part such as 2/8: the second of eight")
    return int(number), int(count)


_CLIPS = "Videos"
Video = Annotated[
    bool,
    typer.Option(
        "--video",
        rich_help_panel=_CLIPS,
        help="Also the videos in folders, animated pictures, and a folder of numbered frames.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="N",
        show_default=False,
        callback=_check_fps,
        rich_help_panel=_CLIPS,
        help="Frames per second of a folder of numbered frames; else 30.",
    ),
]
Frames = Annotated[
    bool,
    typer.Option(
        "--frames", rich_help_panel=_CLIPS, help="Write a folder of PNG frames for each video."
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="TIME",
        show_default=False,
        rich_help_panel=_CLIPS,
        help="Where to begin in a video: seconds, or 1:30.",
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        "--end",
        metavar="TIME",
        show_default=False,
        rich_help_panel=_CLIPS,
        help="Where to end in a video.",
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        "--codec",
        metavar="h264|hevc|vp9|av1|...",
        show_default=False,
        rich_help_panel=_CLIPS,
        help="Video codec; else what suits the container and the input.",
    ),
]
Crf = Annotated[
    int | None,
    typer.Option(
        "--crf",
        metavar="N",
        show_default=False,
        rich_help_panel=_CLIPS,
        help="Quality on the codec's own scale, smaller is better; H.264: 16.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        show_default=False,
        rich_help_panel=_CLIPS,
        help="Speed against size, by the codec's own names; H.264: medium.",
    ),
]
Shard = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do only the I-th of N parts of the batch: one for each machine.",
    ),
]
ENGINES = ("local", "ray")


Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="|".join(ENGINES),
        callback=one_of(ENGINES),
        help="Where the batch runs: here, or on a Ray cluster (RAY_ADDRESS names it).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        show_default=False,
        help="Workers for --engine ray; else one for each GPU or for every 4 CPUs.",
    ),
]
