"""The options that several commands share, and how a function becomes a command with options.

A parameter of a command, or a field of a dataclass of options that belong together, is made by
`option` or `argument` in the place of its default. Options of several commands are types.
"""

import copy
import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

import typer
from typer.models import OptionInfo

from deblurcli.cli import console
from deblurcli.cli.help import SETTINGS, Command
from deblurcli.errors import UsageError, logger

if TYPE_CHECKING:
    from deblurcli.deblurrer import Deblurrer

INPUT, OUTPUT, VIDEO, NETWORK, RUN = "Input", "Output", "Video", "Network", "Run"
"""The headings that help puts options under."""
REQUIRED: Any = dataclasses.MISSING  # the default of what has to be given

T = TypeVar("T")

# --- from functions to commands ------------------------------------------------------------


def about(heading: str | None, text: str, metavar: str | None, *names: str, **details: Any) -> Any:
    """What Typer is told of an option: the heading in help (None is that of its group), a text for
    help, what that calls the value, a short name such as ``-o`` and the long one where it is not
    the parameter's, and details as of `typer.Option`."""
    details |= {"help": text, "metavar": metavar, "rich_help_panel": heading}
    return typer.Option(..., *names, **details)


def option(default: T, text: str, metavar: str | None = None, *names: str, **details: Any) -> T:
    """The default of a parameter that is an option; the rest as in `about`."""
    info = about(None, text, metavar, *names, **details)
    return dataclasses.field(default=default, metadata={"info": info})


def argument(metavar: str, text: str | None = None, default: T = REQUIRED, **details: Any) -> T:
    """As `option`, of a word that is no option."""
    info = typer.Argument(..., help=text, metavar=metavar, **details)
    return dataclasses.field(default=default, metadata={"info": info})


def command(
    app: typer.Typer, name: str, *, epilog: str | None = None
) -> Callable[[Callable[..., object]], object]:
    """Makes a function a command of `app`."""
    register = app.command(name, cls=Command, context_settings=SETTINGS, epilog=epilog)
    return lambda function: register(spread(function))


def spread(function: Callable[..., T]) -> Callable[..., T]:
    """Makes of a function one that Typer understands.

    Parameters of a dataclass's type become its fields, which are options under the dataclass's
    ``heading``. Every command takes ``-q`` and ``-v``.
    """
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []

    def add(name: str, hint: object, default: object, heading: str | None = None) -> None:
        hint, *found = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
        if isinstance(default, dataclasses.Field):
            found, default = [*found, *default.metadata.values()], default.default
        if default is REQUIRED:
            default = inspect.Parameter.empty
        info = copy.copy(found[-1])
        if isinstance(info, OptionInfo):
            if not any(word.startswith("--") for word in info.param_decls or ()):
                info.param_decls = (f"--{name.replace('_', '-')}", *(info.param_decls or ()))
            info.rich_help_panel = info.rich_help_panel or heading
        annotation, kind = Annotated[hint, info], inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))

    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            groups[name] = group
            for field in dataclasses.fields(group):
                add(field.name, field.type, field, getattr(group, "heading", None))
        else:
            add(name, group, parameter.default)
    add("quiet", bool, option(False, "Say only what went wrong.", None, "-q"), RUN)
    details = {"count": True, "show_default": False}
    add("verbose", int, option(0, "Say more; -vv says all.", None, "-v", **details), RUN)

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


def number(
    low: float, high: float = math.inf, kind: type[float] = float
) -> Callable[[float | str], float]:
    """Makes the parser of an option that takes a number from `low` to `high`; nan is none.

    `kind` is float, or int for whole numbers.
    """

    def parse(text: float | str) -> float:
        try:
            value = kind(text)
        except ValueError:
            expected = "a whole number" if kind is int else "a number"
            raise typer.BadParameter(f"{text!r} is not {expected}") from None
        if not low <= value <= high:
            most = "" if high == math.inf else f" and at most {high:g}"
            raise typer.BadParameter(f"{text} is not at least {low:g}{most}")
        return value

    return parse


def whole_number(default: T, text: str, low: int) -> T:
    """An `option` that takes a whole number from `low` on."""
    return option(default, text, "N", parser=number(low, kind=int))


def parse_strength(text: float | str) -> float:
    """Reads ``0.7`` or ``70%``."""
    word = str(text).strip()
    return number(0, 100)(word[:-1]) / 100 if word.endswith("%") else number(0, 1)(word)


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
    matching(r"auto|\d+", "auto, 0 or a number of pixels")(text)
    if text not in ("auto", "0"):
        from deblurcli.deblurrer import MIN_TILE_PX

        if 0 < int(text) < MIN_TILE_PX:
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
    def parse(text: str) -> "Shard":
        """Reads ``2/8``."""
        numbers = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = Shard(*map(int, numbers.groups())) if numbers else Shard(0, 0)
        if not 1 <= shard.number <= shard.total:
            raise typer.BadParameter(f"{text!r} is no part such as 2/8: the second of eight")
        return shard


class Region(NamedTuple):
    """A rectangle of a photo, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    @staticmethod
    def parse(text: str) -> "Region":
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

Blur = Literal["linear", "gamma", "both"]  # GOPRO's two kinds
Weights = Annotated[
    str,
    about(
        NETWORK,
        "Weights to use: a name from 'deblur weights list', or a file.",
        "NAME|FILE",
        envvar="DEBLUR_WEIGHTS",
        autocompletion=complete_weights,
    ),
]
Device = Annotated[
    str,
    about(
        NETWORK,
        "Where to compute.",
        "auto|cpu|cuda|cuda:N|mps",
        envvar="DEBLUR_DEVICE",
        parser=matching(r"auto|cpu|mps|cuda(:\d+)?", "one of auto, cpu, cuda, cuda:1, mps"),
        autocompletion=complete("auto", "cpu", "cuda", "mps"),
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"],
    about(NETWORK, "Number format of the computation.", None),
]
Offline = Annotated[bool, about(NETWORK, "Never download anything.", None)]
Recursive = Annotated[bool, about(INPUT, "Look into sub-folders too.", None, "-r")]
Overwrite = Annotated[bool, about(OUTPUT, "Replace outputs that exist.", None)]
Format = Annotated[
    str | None,
    about(
        OUTPUT,
        "Format of the output photos; else by the name of -o, or the input's own.",
        "jpg|png|...",
        parser=parse_format,
        autocompletion=complete("avif", "bmp", "gif", "heic", "jpg", "png", "tif", "webp"),
    ),
]
"""An ending with its dot."""
Strip = Annotated[bool, about(OUTPUT, "Leave out private metadata: place, camera, dates.", None)]
Damaged = Annotated[
    Literal["refuse", "keep"],
    about(OUTPUT, "What to do with damaged JPEG and PNG photos; keep restores what is left.", None),
]
DryRun = Annotated[bool, about(RUN, "Only list what would be written.", None)]
Json = Annotated[bool, about(RUN, "Print the result as one JSON document.", None)]


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """Where and how a network computes."""

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
    ensemble: Literal[1, 2, 4, 8] = option(
        1, "Restore so many flipped and turned copies, and take their mean: better, and slower."
    )
    offline: Offline = False

    def load(self, weights: str) -> "Deblurrer":
        """Loads a network, or raises as `Deblurrer.load`; a download shows its progress."""
        from deblurcli.deblurrer import Deblurrer

        deblurrer = Deblurrer.load(weights, **vars(self), show_progress=console.show_download)
        precision = deblurrer.precision
        logger.info("weights %s, on %s", deblurrer.weights_path, deblurrer.device)
        logger.info("precision %s: %s", precision, precision.reason)
        return deblurrer


@dataclasses.dataclass(frozen=True)
class ExistingOptions:
    """What becomes of outputs that exist. Raises UsageError if both are asked for."""

    heading: ClassVar[str] = OUTPUT
    overwrite: Overwrite = False
    skip_existing: bool = option(False, "Leave out what is already done.")

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite", "contradicts --skip-existing", "give one of them")
