"""The options that several commands share, and how a function becomes a command with options.

An option of one command is a parameter, or a field of a dataclass, whose default is made by
`option`. Options of several commands have types such as `Device`, which hold an `About`.
Options that belong together are the fields of a dataclass such as `ComputeOptions`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from functools import wraps
from typing import (
    TYPE_CHECKING,
    Annotated,
    ClassVar,
    Literal,
    NamedTuple,
    TypedDict,
    TypeVar,
    get_type_hints,
)

import typer

from deblurcli.cli import console
from deblurcli.errors import UsageError, logger

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deblurcli.deblurrer import Deblurrer

MIN_TILE_PX = 128
"""As in `deblurcli.deblurrer`, which takes seconds to import."""

INPUT, OUTPUT, VIDEO, NETWORK, RUN = "Input", "Output", "Video", "Network", "Run"
"""The headings that help puts options under."""

T = TypeVar("T")

# --- from functions to commands ------------------------------------------------------------


class Details(TypedDict, total=False):
    """What else Typer may be told of an option."""

    autocompletion: Callable[[str], list[str]]
    count: bool
    envvar: str
    parser: Callable[[str], object]
    rich_help_panel: str
    show_default: bool


class About:
    """What is known of an option beside its value; part of its type.

    Args:
        text: for help.
        metavar: what help calls the value, if there is one.
        names: a short one, such as ``-o``; and the long one, where it is not the parameter's.
        details: for Typer.
    """

    def __init__(
        self, text: str, metavar: str | None = None, *names: str, **details: Unpack[Details]
    ) -> None:
        self.text, self.metavar, self.names, self.details = text, metavar, names, details


def option(
    default: T, text: str, metavar: str | None = None, *names: str, **details: Unpack[Details]
) -> T:
    """The default of a parameter that is an option, and what is known `About` it."""
    known = About(text, metavar, *names, **details)
    return dataclasses.field(default=default, metadata={"about": known})


def command(function: Callable[..., T]) -> Callable[..., T]:
    """Makes a command of a function.

    Its parameters of a dataclass's type are spread over the fields, which become options under
    the dataclass's ``heading``. Every command takes ``-q`` and ``-v``.
    """
    # Not get_type_hints: before Python 3.11 it hides the annotation of a default of None.
    given = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []

    def add(name: str, hint: object, default: object, heading: str | None = None) -> None:
        known = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, About)]
        if isinstance(default, dataclasses.Field):
            known += [default.metadata["about"]] if default.metadata else []
            default = default.default
            default = inspect.Parameter.empty if default is dataclasses.MISSING else default
        for info in known:
            is_named = any(word.startswith("--") for word in info.names)
            long = () if is_named else (f"--{name.replace('_', '-')}",)
            details = Details(rich_help_panel=heading) | info.details if heading else info.details
            told = typer.Option(*long, *info.names, help=info.text, metavar=info.metavar, **details)
            hint = Annotated[hint, told]
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=hint))

    for name, parameter in given.items():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            groups[name] = group
            hints = get_type_hints(group, include_extras=True)
            for field in dataclasses.fields(group):
                add(field.name, hints[field.name], field, getattr(group, "heading", None))
        else:
            add(name, parameter.annotation, parameter.default)
    add("quiet", Quiet, False)
    add("verbose", Verbose, 0)

    @wraps(function)
    def run(*, quiet: bool, verbose: int, **values: object) -> T:
        console.start(quiet=quiet, verbose=verbose)
        for name, group in groups.items():
            names = [field.name for field in dataclasses.fields(group)]
            values[name] = group(**{name: values.pop(name) for name in names})
        return function(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


# --- parsing values ------------------------------------------------------------------------


def number(low: float, high: float = math.inf) -> Callable[[float | str], float]:
    """Makes the parser of an option that takes a number from `low` to `high`; nan is none."""

    def parse(text: float | str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a number") from None
        if not low <= value <= high:
            most = "" if high == math.inf else f" and at most {high:g}"
            raise typer.BadParameter(f"{text} is not at least {low:g}{most}")
        return value

    return parse


def whole(low: int, high: float = math.inf) -> Callable[[int | str], int]:
    """Makes the parser of an option that takes a whole number from `low` to `high`."""

    def parse(text: int | str) -> int:
        matching(r"[+-]?\d+", "a whole number")(str(text))
        number(low, high)(text)
        return int(text)

    return parse


def whole_number(default: T, text: str, low: int) -> T:
    """An `option` that takes a whole number from `low` on."""
    return option(default, text, "N", parser=whole(low))


def parse_strength(text: float | str) -> float:
    """Reads ``0.7`` or ``70%``."""
    word = str(text).strip()
    if word.endswith("%"):
        return number(0, 100)(word.removesuffix("%")) / 100
    return number(0, 1)(word)


def parse_fps(text: str) -> float:
    """Reads ``30``, ``23.976`` or ``24000/1001``."""
    frames, _, seconds = text.partition("/")
    part = number(0.001, 1e9)
    return number(0.001, 1000)(part(frames) / part(seconds or "1"))


def matching(pattern: str, expected: str) -> Callable[[str], str]:
    """Makes the parser of an option whose text has to match a pattern; `expected` says which."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise typer.BadParameter(f"{text!r} is not {expected}")
        return text

    return parse


def parse_tile(text: str) -> str:
    if text != "auto" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is not auto, 0 or a number of pixels")
    if text != "auto" and 0 < int(text) < MIN_TILE_PX:
        raise typer.BadParameter(f"{text} is less than {MIN_TILE_PX}, the smallest tile")
    return text


def parse_seconds(text: str) -> float:
    """Reads a time as people write it: ``90``, ``90.5``, ``1:30`` or ``0:01:30.5``."""
    matching(r"(\d+:){0,2}(\d+\.?\d*|\.\d+)", "a time such as 90.5 or 1:30")(text)
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def parse_format(text: str) -> str:
    """Reads ``jpg``, ``.JPG`` and the like; gives the ending with its dot."""
    from deblurcli.io.photos import PHOTO_SUFFIXES

    suffix = f".{text.lower().removeprefix('.')}"
    if suffix not in PHOTO_SUFFIXES:
        known = ", ".join(sorted(s[1:] for s in PHOTO_SUFFIXES))
        raise typer.BadParameter(f"{text!r} is not one of {known}")
    return suffix


class Shard(NamedTuple):
    """One of `total` equal parts of a batch, counted from 1."""

    number: int
    total: int

    @staticmethod
    def parse(text: str) -> Shard:
        """Reads ``2/8``."""
        number, _, total = text.partition("/")
        if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise typer.BadParameter(f"{text!r} is no part such as 2/8: the second of eight")
        return Shard(int(number), int(total))


class Region(NamedTuple):
    """A rectangle of a photo, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    @staticmethod
    def parse(text: str) -> Region:
        """Reads ``X,Y,W,H``."""
        matching(r"\d+( *, *\d+){3}", "X,Y,W,H: four whole numbers of pixels")(text)
        region = Region(*map(int, text.split(",")))
        if not region.width or not region.height:
            raise typer.BadParameter(f"{text!r} is empty: its width or height is 0")
        return region


def complete(*names: str) -> Callable[[str], list[str]]:
    """Makes the completion of what may be one of `names`; shells offer files where none fits."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Offers the names of weights."""
    from deblurcli.weights import hub

    return complete("default", *hub.catalogue().entries)(incomplete)


# --- what several commands take ------------------------------------------------------------

Blur = Literal["linear", "gamma", "both"]
"""GOPRO's two kinds."""
Weights = Annotated[
    str,
    About(
        "Weights to use: a name from 'deblur weights list', or a file.",
        "NAME|FILE",
        rich_help_panel=NETWORK,
        envvar="DEBLUR_WEIGHTS",
        autocompletion=complete_weights,
    ),
]
Device = Annotated[
    str,
    About(
        "Where to compute.",
        "auto|cpu|cuda|cuda:N|mps",
        rich_help_panel=NETWORK,
        envvar="DEBLUR_DEVICE",
        parser=matching(r"auto|cpu|mps|cuda(:\d+)?", "one of auto, cpu, cuda, cuda:1, mps"),
        autocompletion=complete("auto", "cpu", "cuda", "mps"),
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"],
    About("Number format of the computation.", rich_help_panel=NETWORK),
]
Ensemble = Annotated[
    Literal[1, 2, 4, 8],
    About(
        "Restore so many flipped and turned copies, and take their mean: better, and slower.",
        rich_help_panel=NETWORK,
    ),
]
Offline = Annotated[bool, About("Never download anything.", rich_help_panel=NETWORK)]
Recursive = Annotated[bool, About("Look into sub-folders too.", None, "-r", rich_help_panel=INPUT)]
Overwrite = Annotated[bool, About("Replace outputs that exist.", rich_help_panel=OUTPUT)]
Format = Annotated[
    str | None,
    About(
        "Format of the output photos; else by the name of -o, or the input's own.",
        "jpg|png|...",
        rich_help_panel=OUTPUT,
        parser=parse_format,
        autocompletion=complete("avif", "bmp", "gif", "heic", "jpg", "png", "tif", "webp"),
    ),
]
"""An ending with its dot."""
Strip = Annotated[
    bool, About("Leave out private metadata: place, camera, dates.", rich_help_panel=OUTPUT)
]
Damaged = Annotated[
    Literal["refuse", "keep"],
    About(
        "What becomes of damaged JPEG and PNG photos; keep restores what is left.",
        rich_help_panel=OUTPUT,
    ),
]
DryRun = Annotated[bool, About("Only list what would be written.", rich_help_panel=RUN)]
Json = Annotated[bool, About("Print the result as one JSON document.", rich_help_panel=RUN)]
Quiet = Annotated[bool, About("Say only what went wrong.", None, "-q", rich_help_panel=RUN)]
Verbose = Annotated[
    int,
    About(
        "Say more; -vv says all.", None, "-v", rich_help_panel=RUN, count=True, show_default=False
    ),
]


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """Where and how a network computes.

    Attributes:
        heading: of these options in help.
    """

    heading: ClassVar[str] = NETWORK
    device: Device = "auto"
    precision: Precision = "auto"
    backend: Literal["auto", "torch", "onnx"] = option(
        "auto", "What computes; onnx needs no PyTorch, and only CPUs."
    )
    tile: str = option(
        "auto",
        "Side of the tiles that large images are cut into; 0 never cuts.",
        "auto|PX|0",
        parser=parse_tile,
        autocompletion=complete("auto", "0", "512", "1024"),
    )
    strength: float = option(
        1.0,
        "How much of the change to apply: 0 none, 1 or 100% all.",
        "0..1",
        parser=parse_strength,
    )
    ensemble: Ensemble = 1
    offline: Offline = False

    def load(self, weights: str) -> Deblurrer:
        """Loads a network; a download shows its progress.

        Raises:
            WeightsError, DeviceError, UsageError: as `Deblurrer.load`.
        """
        from deblurcli.deblurrer import Deblurrer

        deblurrer = Deblurrer.load(
            weights,
            self.device,
            self.precision,
            backend=self.backend,
            tile=self.tile,
            strength=self.strength,
            ensemble=self.ensemble,
            offline=self.offline,
            show_progress=console.show_download,
        )
        precision = deblurrer.precision
        logger.info("weights %s, on %s", deblurrer.weights_path, deblurrer.device)
        logger.info("precision %s: %s", precision, precision.reason)
        return deblurrer


@dataclasses.dataclass(frozen=True)
class ExistingOptions:
    """What becomes of outputs that exist.

    Raises:
        UsageError: both are asked for.
    """

    heading: ClassVar[str] = OUTPUT
    overwrite: Overwrite = False
    skip_existing: bool = option(False, "Leave out what is already done.")

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite", "contradicts --skip-existing", "give one of them")
