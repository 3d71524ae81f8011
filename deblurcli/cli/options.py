"""The options that several commands share, each with one name, one help text, one meaning.

Options that belong together are the fields of a dataclass. `grouped` lets a command take such
dataclasses as its parameters.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, get_type_hints

import typer

from deblurcli.cli import console
from deblurcli.errors import UsageError

if TYPE_CHECKING:
    from deblurcli.batch.ray import NetworkChoice
    from deblurcli.batch.selection import Selection
    from deblurcli.deblurrer import Deblurrer

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ENGINES = ("local", "ray")
MIN_TILE_PX = 128
"""As in `deblurcli.deblurrer`, which takes seconds to import."""

INPUT, OUTPUT, VIDEO, NETWORK, RUN = "Input", "Output", "Video", "Network", "Run"
"""The headings that help puts options under."""

Result = TypeVar("Result")


def grouped(function: Callable[..., Result]) -> Callable[..., Result]:
    """Spreads the parameters of `function` that are dataclasses of options over their fields.

    Each field is an option of the command; `function` gets the dataclasses.
    """
    # Not get_type_hints: before Python 3.11 it hides the annotation of a default of None.
    given = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, type] = {
        name: parameter.annotation
        for name, parameter in given.items()
        if isinstance(parameter.annotation, type) and dataclasses.is_dataclass(parameter.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in given.values():
        kind = groups.get(parameter.name)
        if kind is None:
            parameters.append(parameter)
            continue
        annotations = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=annotations[field.name],
            )
            for field in dataclasses.fields(kind)
        ]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @wraps(function)
    def command(**values: object) -> Result:
        for parameter, kind in groups.items():
            names = [field.name for field in dataclasses.fields(kind)]
            values[parameter] = kind(**{name: values.pop(name) for name in names})
        return function(**values)

    command.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in keyword_only}
    return command


# --- parsing values ------------------------------------------------------------------------


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """Makes the parser of an option that takes one of a few words."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(names)}")
        return text

    return parse


def number(
    low: float, high: float = float("inf"), *, above: bool = False
) -> Callable[[float | str], float]:
    """Makes the parser of an option that takes a number from `low` to `high`; with `above`,
    `low` itself is not allowed."""

    def parse(text: float | str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a number") from None
        if not (low < value if above else low <= value) or not value <= high:
            least = f"more than {low:g}" if above else f"at least {low:g}"
            most = "" if high == float("inf") else f" and at most {high:g}"
            raise typer.BadParameter(f"{text} is not {least}{most}")
        return value

    return parse


def parse_strength(text: float | str) -> float:
    """Reads ``0.7`` or ``70%``."""
    word = str(text).strip()
    if word.endswith("%"):
        return number(0, 100)(word.removesuffix("%")) / 100
    return number(0, 1)(word)


def parse_fps(text: float | str) -> float:
    """Reads ``30``, ``23.976`` or ``24000/1001``."""
    frames, _, seconds = str(text).partition("/")
    rate = number(0, above=True)
    return number(0, 1000, above=True)(rate(frames) / rate(seconds or "1"))


def parse_device(text: str) -> str:
    kind, _, index = text.partition(":")
    if kind not in DEVICES or (":" in text and not (kind == "cuda" and index.isdecimal())):
        raise typer.BadParameter(f"{text!r} is not one of auto, cpu, cuda, cuda:1, mps")
    return text


def parse_tile(text: str) -> str:
    if text != "auto" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is not auto, 0 or a number of pixels")
    if text != "auto" and 0 < int(text) < MIN_TILE_PX:
        raise typer.BadParameter(f"{text} is less than {MIN_TILE_PX}, the smallest tile")
    return text


def parse_seconds(text: float | str) -> float:
    """Reads a time as people write it: ``90``, ``90.5``, ``1:30`` or ``0:01:30.5``."""
    parts = str(text).split(":")
    try:
        if len(parts) > 3 or any(part.strip() != part for part in parts):
            raise ValueError
        numbers = [float(part) for part in parts]
        if not all(number >= 0 and number < float("inf") for number in numbers):
            raise ValueError
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 90.5 or 1:30") from None
    return sum(number * 60.0**power for power, number in enumerate(reversed(numbers)))


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a batch, counted from 1."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @staticmethod
    def parse(text: str | Shard) -> Shard:
        """Reads ``2/8``."""
        if isinstance(text, Shard):
            return text
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise typer.BadParameter(f"{text!r} is no part such as 2/8: the second of eight")
        return Shard(int(number), int(count))


def refuse_contradiction(*, overwrite: bool, skip_existing: bool) -> None:
    """Raises UsageError where both are asked for."""
    if overwrite and skip_existing:
        raise UsageError("--overwrite", "contradicts --skip-existing", "give one of them")


def complete(*names: str) -> Callable[[str], list[str]]:
    """Makes the completion of an option that takes one of `names`."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Offers the names of weights, and files."""
    from deblurcli.weights import hub

    names = ["default", *(entry.name for entry in hub.catalogue().entries)]
    return complete(*names)(incomplete) + complete_path(incomplete)


def complete_path(incomplete: str) -> list[str]:
    """Offers files and folders; hidden ones only where a dot asks for them."""
    parent, stem = incomplete.rpartition("/")[::2]
    try:
        there = sorted(Path(parent or ("/" if incomplete.startswith("/") else ".")).iterdir())
    except OSError:
        return []
    shown = [path for path in there if path.name.startswith(stem)]
    return [
        incomplete.removesuffix(stem) + path.name + ("/" if path.is_dir() else "")
        for path in shown
        if stem or not path.name.startswith(".")
    ]


# --- what any command may take -------------------------------------------------------------

Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="NAME|FILE",
        envvar="DEBLUR_WEIGHTS",
        autocompletion=complete_weights,
        rich_help_panel=NETWORK,
        help="Weights to use: a name from 'deblur weights list', or a file.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N|mps",
        envvar="DEBLUR_DEVICE",
        parser=parse_device,
        autocompletion=complete(*DEVICES),
        rich_help_panel=NETWORK,
        help="Where to compute.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="|".join(PRECISIONS),
        parser=one_of(PRECISIONS),
        autocompletion=complete(*PRECISIONS),
        rich_help_panel=NETWORK,
        help="Number format of the computation.",
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|PX|0",
        parser=parse_tile,
        autocompletion=complete("auto", "0", "512", "1024"),
        rich_help_panel=NETWORK,
        help="Side of the tiles that large images are cut into; 0 never cuts.",
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        "--strength",
        metavar="0..1",
        parser=parse_strength,
        rich_help_panel=NETWORK,
        help="How much of the change to apply: 0 none, 1 or 100% all.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", rich_help_panel=NETWORK, help="Never download anything."),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace outputs that exist."),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", rich_help_panel=OUTPUT, help="Leave out what is already done."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=RUN, help="Only list what would be written.")
]
Recursive = Annotated[
    bool,
    typer.Option("--recursive", "-r", rich_help_panel=INPUT, help="Look into sub-folders too."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="jpg|png|...",
        show_default=False,
        autocompletion=complete("avif", "bmp", "gif", "heic", "jpg", "png", "tif", "webp"),
        rich_help_panel=OUTPUT,
        help="Format of the output photos; else by the name of -o, or the input's own.",
    ),
]
Strip = Annotated[
    bool,
    typer.Option(
        "--strip",
        rich_help_panel=OUTPUT,
        help="Leave out private metadata: place, camera, dates.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=RUN, help="Print the result as one JSON document."),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", rich_help_panel=RUN, help="Say only what went wrong."),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        rich_help_panel=RUN,
        help="Say more; -vv says all.",
    ),
]


@dataclasses.dataclass(frozen=True)
class ConsoleOptions:
    """How much is said, and in which form."""

    json: Json = False
    quiet: Quiet = False
    verbose: Verbose = 0

    def start(self) -> None:
        """Sets up what the command line says; every command begins with it."""
        console.start(quiet=self.quiet, verbose=self.verbose)


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """Which network computes, where and how."""

    weights: Weights = "default"
    device: Device = "auto"
    precision: Precision = "auto"
    tile: Tile = "auto"
    strength: Strength = 1.0
    offline: Offline = False

    def load(self, *, quiet: bool) -> Deblurrer:
        """Loads the network; a download shows its progress.

        Raises:
            WeightsError, DeviceError, UsageError: as `Deblurrer.load`.
        """
        from deblurcli.cli.fetching import download_bar
        from deblurcli.deblurrer import Deblurrer

        deblurrer = Deblurrer.load(
            self.weights,
            self.device,
            self.precision,
            tile=self.tile,
            strength=self.strength,
            offline=self.offline,
            show_progress=download_bar(quiet=quiet),
        )
        precision = deblurrer.precision
        console.logger.info("weights %s, on %s", deblurrer.weights_path, deblurrer.device)
        console.logger.info("precision %s: %s", precision, precision.reason)
        return deblurrer

    def choose(self, *, quiet: bool) -> NetworkChoice:
        """The same for workers on other machines: only the weights are looked for here."""
        from deblurcli.batch.ray import NetworkChoice
        from deblurcli.cli.fetching import find_weights

        path = find_weights(self.weights, offline=self.offline, quiet=quiet)
        return NetworkChoice(
            str(path.absolute()), self.device, self.precision, self.tile, self.strength
        )


# --- what restoring takes ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Region:
    """A rectangle of a photo, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    @staticmethod
    def parse(text: str) -> Region:
        """Reads ``X,Y,W,H``."""
        numbers = text.split(",")
        if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
            raise typer.BadParameter(f"{text!r} is not X,Y,W,H: four whole numbers of pixels")
        region = Region(*map(int, numbers))
        if not region.width or not region.height:
            raise typer.BadParameter(f"{text!r} is empty: its width or height is 0")
        return region


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """What is restored."""

    recursive: Recursive = False
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            show_default=False,
            autocompletion=complete_path,
            rich_help_panel=INPUT,
            help="A picture of a photo's size: only what is white in it is restored.",
        ),
    ] = None
    region: Annotated[
        Region | None,
        typer.Option(
            "--region",
            metavar="X,Y,W,H",
            show_default=False,
            parser=Region.parse,
            rich_help_panel=INPUT,
            help="Only this part of each photo is restored: left, top, width and height in pixels.",
        ),
    ] = None
    skip_sharp: Annotated[
        bool,
        typer.Option(
            "--skip-sharp",
            rich_help_panel=INPUT,
            help="Leave photos alone that are sharp already; with --dry-run, tell which.",
        ),
    ] = False

    def select(self, kinds: Collection[str]) -> Selection | None:
        """Reads what ``--mask`` and ``--region`` select of inputs of these `kinds`.

        Raises:
            UsageError: there are videos among them.
            DeblurError: the mask can't be read.
        """
        if self.mask is None and self.region is None:
            return None
        if set(kinds) - {"photo"}:
            option = "--region" if self.mask is None else "--mask"
            raise UsageError(option, "is for photos, but there are videos", "leave the videos out")
        from deblurcli.batch.selection import Selection

        region = None if self.region is None else dataclasses.astuple(self.region)
        return Selection.read(self.mask, region)


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """Where results go and in which form."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            show_default=False,
            autocompletion=complete_path,
            rich_help_panel=OUTPUT,
            help="File or folder to write; - is standard output.",
        ),
    ] = None
    format: Format = None
    overwrite: Overwrite = False
    skip_existing: SkipExisting = False
    strip: Strip = False
    damaged: Annotated[
        str,
        typer.Option(
            "--damaged",
            metavar="refuse|keep",
            parser=one_of(("refuse", "keep")),
            rich_help_panel=OUTPUT,
            help="What becomes of damaged JPEG and PNG photos; keep restores what is left.",
        ),
    ] = "refuse"
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels",
            metavar="N",
            min=1,
            rich_help_panel=OUTPUT,
            help="Refuse photos with more pixels, and files of more than 8 bytes for each.",
        ),
    ] = 500_000_000

    def check(self) -> None:
        """Raises UsageError where options contradict each other or name an unknown format."""
        refuse_contradiction(overwrite=self.overwrite, skip_existing=self.skip_existing)
        self.suffix  # noqa: B018  (raises)

    @property
    def suffix(self) -> str | None:
        """The ending that ``--format`` asks for, with its dot."""
        if self.format is None:
            return None
        from deblurcli.io.photos import PHOTO_SUFFIXES

        suffix = f".{self.format.lower().removeprefix('.')}"
        if suffix not in PHOTO_SUFFIXES:
            known = ", ".join(sorted(s[1:] for s in PHOTO_SUFFIXES))
            raise UsageError("--format", f"{self.format!r} is not known", f"give one of: {known}")
        return suffix


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """What is done with videos, animations and numbered frames."""

    video: Annotated[
        bool,
        typer.Option(
            "--video",
            rich_help_panel=VIDEO,
            help="Also the videos in folders, animated pictures, and a folder of numbered frames.",
        ),
    ] = False
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            metavar="N",
            show_default=False,
            parser=parse_fps,
            rich_help_panel=VIDEO,
            help="Frames per second of a folder of numbered frames; else 30.",
        ),
    ] = None
    frames: Annotated[
        bool,
        typer.Option(
            "--frames",
            rich_help_panel=VIDEO,
            help="Write a folder of frames for each video: PNG, or JPEG with --format jpg.",
        ),
    ] = False
    start: Annotated[
        float | None,
        typer.Option(
            "--start",
            metavar="TIME",
            show_default=False,
            parser=parse_seconds,
            rich_help_panel=VIDEO,
            help="Where to begin in a video: seconds, or 1:30.",
        ),
    ] = None
    end: Annotated[
        float | None,
        typer.Option(
            "--end",
            metavar="TIME",
            show_default=False,
            parser=parse_seconds,
            rich_help_panel=VIDEO,
            help="Where to end in a video.",
        ),
    ] = None
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec",
            metavar="h264|hevc|vp9|av1|...",
            show_default=False,
            autocompletion=complete("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "ffv1"),
            rich_help_panel=VIDEO,
            help="Video codec; else what suits the container and the input.",
        ),
    ] = None
    crf: Annotated[
        int | None,
        typer.Option(
            "--crf",
            metavar="N",
            show_default=False,
            rich_help_panel=VIDEO,
            help="Quality on the codec's own scale, smaller is better; H.264: 16.",
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            show_default=False,
            rich_help_panel=VIDEO,
            help="Speed against size, by the codec's own names; H.264: medium.",
        ),
    ] = None


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """Which part of a batch is done, and by whom."""

    dry_run: DryRun = False
    shard: Annotated[
        Shard,
        typer.Option(
            "--shard",
            metavar="I/N",
            parser=Shard.parse,
            rich_help_panel=RUN,
            help="Do only the I-th of N parts of the batch: one for each machine.",
        ),
    ] = Shard()
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="|".join(ENGINES),
            parser=one_of(ENGINES),
            autocompletion=complete(*ENGINES),
            rich_help_panel=RUN,
            help="Where the batch runs: here, or on a Ray cluster (RAY_ADDRESS names it).",
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=RUN,
            help="Workers for --engine ray; else one for each GPU or for every 4 CPUs.",
        ),
    ] = None
