"""The command line: ``deblur PATH...`` beside ``deblur COMMAND ...``.

The group's own callback is the default command, `restore`. Whether the first word names a
command decides which of the two parsers gets the words. Modules that need torch are imported
inside the commands' functions, so that ``deblur --help`` answers at once.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from deblurcli.cli import (
    compare,
    console,
    data,
    eval,  # noqa: A004  (the command's name)
    info,
    restore,
    train,
    weights,
)
from deblurcli.errors import DeblurError, UsageError

__all__ = ["main"]


class DefaultCommandGroup(TyperGroup):
    """A group whose words are paths for its own callback, unless the first names a command."""

    allow_interspersed_args = True

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if args and args[0] in self.commands:
            name = args[0]
            command = self.commands[name]
            return command.make_context(f"{info_name} {name}", args[1:], parent=parent, **extra)
        words = list(args)
        try:
            context = super().make_context(info_name, args, parent=parent, **extra)
        except typer.TyperException as error:
            self._refuse_near_command(words, _sentence(error))
            raise
        if not extra.get("resilient_parsing"):
            self._refuse_near_command(words[:1], "no such file and no such command")
            if not words:
                print(context.get_help(), file=sys.stderr)
                raise typer.Exit(console.EXIT_USAGE)
        return context

    def invoke(self, ctx: Any) -> Any:
        if ctx.command is not self:
            return ctx.command.invoke(ctx)
        return super().invoke(ctx)

    def _refuse_near_command(self, words: Sequence[str], reason: str) -> None:
        """Tells a mistyped or misplaced command from a path."""
        for before, word in zip(("", *words), words, strict=False):
            # --weights resembles a command, but is an option; "inf" after --strength, a value.
            if word.startswith("-") or before.startswith("-"):
                continue
            near = difflib.get_close_matches(word, list(self.commands), 1, cutoff=0.75)
            if near and not os.path.lexists(word):
                raise UsageError(
                    word, reason, f"for the command '{near[0]}', write: deblur {near[0]} ..."
                )


_GO_ON = "; what is done is kept, go on with --skip-existing"
_HOW_TO_GO_ON = {
    "train": "; a run that had begun is saved, go on with --resume",
    "eval": "; what --csv keeps is not measured again",
    "compare": "",
    "info": "",
    "weights": "",
}

_WORDS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="deblur",
    cls=DefaultCommandGroup,
    invoke_without_command=True,
    rich_markup_mode=None,  # plain help: at once, and clean in pipes
    pretty_exceptions_enable=False,
    subcommand_metavar="| COMMAND ...",
    epilog=restore.EPILOG,
    context_settings=_WORDS,
)
app.callback()(restore.restore)
app.command("train", epilog=train.EPILOG, context_settings=_WORDS)(train.train)
app.command("eval", context_settings=_WORDS)(eval.run)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.command("compare", context_settings=_WORDS)(compare.compare)
app.command("info", context_settings=_WORDS)(info.info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code; see the table in README.md.

    Args:
        arguments: the words after ``deblur``; those of the process when None.
    """
    signal.signal(signal.SIGTERM, _end)
    # PyTorch's threads would wait for each other in busy loops, and where other programs (or
    # a video's coder) want the same cores, a photo took twice to three times as long.
    # It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        result = app(
            args=None if arguments is None else list(arguments),
            prog_name="deblur",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except DeblurError as error:
        console.say_error(error)
        return error.exit_code
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "deblur")
        console.say(f"deblur: {_sentence(error)}; see '{command} --help'")
        return error.exit_code
    except BrokenPipeError:
        console.silence_stdout()
        return console.EXIT_FAILED
    except OSError as error:
        if error.filename is not None or error.errno not in console.NO_ROOM:
            raise  # not of standard output, but a defect
        console.silence_stdout()
        console.say("deblur: standard output: the disk is full; free some space")
        return console.EXIT_FAILED
    except (KeyboardInterrupt, typer.Abort):
        result = console.EXIT_INTERRUPTED
    if result == console.EXIT_INTERRUPTED:  # Typer turns KeyboardInterrupt into this
        words = sys.argv[1:] if arguments is None else arguments
        console.say(f"deblur: interrupted{_HOW_TO_GO_ON.get(words[0] if words else '', _GO_ON)}")
    return result if isinstance(result, int) else 0


def _end(signal_number: int, frame: FrameType | None) -> None:
    """Lets ``kill`` remove half-written files, as Ctrl-C does."""
    del frame
    raise SystemExit(128 + signal_number)


def _sentence(error: typer.TyperException) -> str:
    """Typer's message in the form of ours: one line, small first letter, no full stop."""
    text = " ".join(error.format_message().split()).rstrip(".")
    return text[:1].lower() + text[1:]
