"""What the command line says, and where: results on stdout, everything else on stderr.

Progress bars show only on a terminal, so that logs and pipes stay clean. How much is said is the
level of the package's `logger`.
"""

import errno
import json
import logging
import os
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import typer

from deblurcli.errors import EXIT_FAILED, EXIT_USAGE, DeblurError, logger, one_line

if TYPE_CHECKING:
    from tqdm import tqdm

    ProgressBar = tqdm[NoReturn]

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what writing to a full disk fails with


class StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(f"deblur: {self.format(record)}")


def start(*, quiet: bool, verbose: int) -> None:
    """Sets how much is said: with ``-q`` errors only, with ``-v`` also the steps taken, with
    ``-vv`` also warnings of the libraries underneath. Of torchrun's processes the first speaks."""
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    logger.handlers = [StderrHandler()]
    logger.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
    if verbose < 2:
        # A library's warning is written for programmers; the user gets one line per problem.
        warnings.simplefilter("ignore")


def make_group(text: str) -> typer.Typer:
    """Makes a group of commands; without one of them it shows its help, with exit code 2."""
    group = typer.Typer(help=text, rich_markup_mode=None, invoke_without_command=True)

    @group.callback()
    def explain(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            print(context.get_help(), file=sys.stderr)
            raise typer.Exit(EXIT_USAGE)

    return group


def say(text: str) -> None:
    """One line for the user on stderr, above a progress bar if there is one."""
    line = one_line(text)
    if "tqdm" in sys.modules and sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """One line for the user that ``-q`` leaves out."""
    if logger.isEnabledFor(logging.WARNING):
        say(text)


def say_errors(*errors: DeblurError) -> int:
    """Says what failed; gives the exit code."""
    for error in errors:
        say(f"deblur: {error}")
    return EXIT_FAILED if errors else 0


json_is_printed = False  # whether the one document of ``--json`` is out


def print_json(document: object) -> None:
    """The one JSON document of a run, on stdout; figures that are not finite become null."""
    global json_is_printed  # noqa: PLW0603  (a process has one standard output)
    json_is_printed = True
    finite = json.loads(json.dumps(document), parse_constant=lambda word: None)
    print(json.dumps(finite, indent=2), flush=True)


def print_lines(text: str) -> None:
    """Text on stdout in which names from files stand: no terminal is to obey them."""
    print("\n".join(map(one_line, text.split("\n"))), flush=True)


def print_result(text: object, document: object, *, json: bool) -> None:
    """What a command gives, on stdout: as text for people, or for programs."""
    if json:
        print_json(document)
    else:
        print(text)


def progress(
    total: float | None,
    unit: str,
    *,
    description: str = "",
    unit_scale: bool = False,
    hidden: bool = False,
) -> "ProgressBar":
    """Makes a progress bar on stderr; it shows on a terminal only, and never with ``-q``."""
    from tqdm import tqdm

    # Without a total tqdm does not shorten its line to the terminal: there has to be room.
    shown = not hidden and logger.isEnabledFor(logging.WARNING) and sys.stderr.isatty()
    room = os.get_terminal_size(sys.stderr.fileno()).columns - 40 if shown else 0
    return tqdm(
        total=total,
        unit=unit,
        unit_scale=unit_scale,
        desc=one_line(description)[:room] if description and room >= 10 else None,
        file=sys.stderr,
        dynamic_ncols=True,
        leave=False,
        disable=not shown,
    )


def show_download(size_bytes: int) -> "ProgressBar":
    """Shows a download of weights: by a bar on a terminal, else by a line."""
    if not sys.stderr.isatty():
        note(f"downloading weights, {size_bytes / 1e6:.1f} MB")
    return progress(size_bytes, "B", description="weights", unit_scale=True)


def silence_stdout() -> None:
    """After the reader of our output has gone: nothing more can be said there."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
