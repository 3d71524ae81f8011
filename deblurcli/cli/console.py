"""What the command line says, and where: results on stdout, everything else on stderr.

Progress bars show only on a terminal, so that logs and pipes stay clean.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import typer

from deblurcli.errors import DeblurError

if TYPE_CHECKING:
    from tqdm import tqdm

    Progress = tqdm[NoReturn]

logger = logging.getLogger("deblurcli")

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What writing to a full disk fails with."""

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def start(*, quiet: bool, verbose: int) -> None:
    """Sets how much is said: with ``-q`` errors only, with ``-v`` also the steps taken.

    ``-vv`` shows the warnings of the libraries underneath as well.
    """
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO)[min(verbose, 1)]
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("deblur: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
    if verbose < 2:
        # A library's warning is written for programmers; the user gets one line per problem.
        warnings.simplefilter("ignore")


def explain_group(context: typer.Context) -> None:
    """For a group of commands: without one, its help and exit code 2."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(EXIT_USAGE)


def say(text: str) -> None:
    """One line for the user on stderr, above a progress bar if there is one."""
    line = one_line(text)
    if "tqdm" in sys.modules and sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def say_error(error: DeblurError) -> None:
    say(f"deblur: {error}")


json_is_printed = False
"""Whether the one document of ``--json`` is out."""


def print_json(document: object) -> None:
    """The one JSON document of a run, on stdout."""
    global json_is_printed  # noqa: PLW0603  (a process has one standard output)
    json_is_printed = True
    print(json.dumps(document, indent=2), flush=True)


def progress(
    total: float | None, unit: str, *, description: str | None = None, quiet: bool = False
) -> Progress:
    """Makes a progress bar on stderr; it shows on a terminal only, and if not `quiet`."""
    from tqdm import tqdm

    # Without a total tqdm does not shorten its line to the terminal: there has to be room.
    shown = not quiet and sys.stderr.isatty()
    room = os.get_terminal_size(sys.stderr.fileno()).columns - 40 if shown else 0
    return tqdm(
        total=total,
        unit=unit,
        desc=None if description is None or room < 10 else one_line(description)[:room],
        file=sys.stderr,
        dynamic_ncols=True,
        leave=False,
        disable=not shown,
    )


def silence_stdout() -> None:
    """After the reader of our output has gone: nothing more can be said there."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))
