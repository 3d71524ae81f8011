"""The command line: ``deblur PATH...`` beside ``deblur COMMAND ...``.

The group's own callback is the default command, `restore`. Whether the first word names a
command decides which of the two parsers gets the words. Modules that need torch are imported
inside the commands' functions, so that ``deblur --help`` answers at once.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TypedDict

import typer
from typer.core import TyperGroup

from deblurcli import __version__
from deblurcli.cli import (
    compare,
    console,
    data,
    eval,  # noqa: A004  (the command's name)
    info,
    restore,
    score,
    serve,
    train,
    watch,
    weights,
)
from deblurcli.cli.help import SETTINGS, Command, man_page, write_options
from deblurcli.errors import DeblurError, UsageError

if TYPE_CHECKING:  # no part of Typer's interface, so never imported
    from typer._click import Context, HelpFormatter

__all__ = ["main"]


class DefaultCommandGroup(TyperGroup):
    """A group whose words are paths for its own callback, unless the first names a command."""

    allow_interspersed_args = True

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Context | None = None,
        **extra: Any,
    ) -> Context:
        if args == ["help", "--man"]:
            print(man_page(self), end="")
            raise typer.Exit
        if args and args[0] == "help":  # as other programs have it: help, help train
            args = [*args[1:], "--help"]
        elif args == ["version"]:
            args = ["--version"]
        if args and args[0] in self.commands:
            name = args[0]
            command = self.commands[name]
            return command.make_context(f"{info_name} {name}", args[1:], parent=parent, **extra)
        words = list(args)
        try:
            context = super().make_context(info_name, args, parent=parent, **extra)
        except typer.TyperException as error:
            self._refuse_near_command(words, sentence(error))
            raise
        if not extra.get("resilient_parsing"):
            self._refuse_near_command(words[:1], "no such file and no such command")
            if not words:
                print(context.get_help(), file=sys.stderr)
                raise typer.Exit(console.EXIT_USAGE)
        return context

    def invoke(self, ctx: Context) -> object:
        if ctx.command is not self:
            return ctx.command.invoke(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

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
    "score": "",
    "serve": "",
    "watch": "; started again, it restores what arrived in between",
    "weights": "",
}

app = typer.Typer(
    name="deblur",
    cls=DefaultCommandGroup,
    invoke_without_command=True,
    rich_markup_mode=None,  # plain help: at once, and clean in pipes
    pretty_exceptions_enable=False,
    subcommand_metavar="| COMMAND ...",
    epilog=restore.EPILOG,
    context_settings=SETTINGS,
)
app.callback()(restore.restore)
app.command("train", epilog=train.EPILOG)(train.train)
app.command("eval")(eval.run)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.command("compare")(compare.compare)
app.command("score")(score.score)
app.command("serve")(serve.serve)
app.command("watch")(watch.watch)
app.command("info")(info.info)
for command in (
    *app.registered_commands,
    *data.app.registered_commands,
    *weights.app.registered_commands,
):
    command.cls, command.context_settings = Command, SETTINGS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code; see the table in docs/command-line.md.

    With ``--json`` standard output gets one document, whatever happens.

    Args:
        arguments: the words after ``deblur``; those of the process when None.
    """
    _open_closed_streams()
    signal.signal(signal.SIGTERM, _end)
    # nohup has it ignored, and that is to stay so.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _end)
    # PyTorch's threads would wait for each other in busy loops, and where other programs (or
    # a video's coder) want the same cores, a photo took twice to three times as long.
    # It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    console.json_is_printed = False
    stopped: BaseException | None = None
    try:
        if not _has_folder():
            raise UsageError("current folder", "it was deleted", "change to one that is there")
        result = app(args=words, prog_name="deblur", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        try:
            sys.stdout.flush()
        except OSError:
            if code == 0:
                raise
            console.silence_stdout()  # that has been told
    except BaseException as error:
        stopped, code = error, _exit_code(error)
    if code == console.EXIT_INTERRUPTED:  # Typer turns KeyboardInterrupt into this
        console.say(f"deblur: interrupted{_HOW_TO_GO_ON.get(words[0] if words else '', _GO_ON)}")
    options = words[: words.index("--")] if "--" in words else words
    if "--json" in options and code and not console.json_is_printed:
        with suppress(OSError):
            console.print_json(_failure(code, stopped))
    if stopped is not None and code == _BUG:
        raise stopped
    return code


_BUG = -1


def _exit_code(error: BaseException) -> int:
    """The exit code that an error stands for; says the error. `_BUG` for one of ours."""
    code = _BUG
    if isinstance(error, DeblurError):
        console.say_error(error)
        code = error.exit_code
    elif isinstance(error, typer.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "deblur")
        console.say(f"deblur: {sentence(error)}; see '{command} --help'")
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt | typer.Abort):
        code = console.EXIT_INTERRUPTED
    elif isinstance(error, SystemExit) and isinstance(error.code, int):
        code = error.code
    elif isinstance(error, BrokenPipeError):
        console.silence_stdout()
        code = console.EXIT_FAILED
    elif isinstance(error, OSError) and error.filename is None and error.errno in console.NO_ROOM:
        console.silence_stdout()
        console.say("deblur: standard output: the disk is full; free some space")
        code = console.EXIT_FAILED
    elif isinstance(error, OSError) and error.filename is None and error.errno == errno.EBADF:
        console.silence_stdout()
        console.say("deblur: standard output: it is closed; leave it open")
        code = console.EXIT_FAILED
    return code


class Failure(TypedDict, total=False):
    """What ``--json`` prints where a command came to no document of its own."""

    version: str
    exit_code: int
    stopped: str
    error: dict[str, str]


def _failure(code: int, error: BaseException | None) -> Failure:
    document = Failure(version=__version__, exit_code=code)
    if isinstance(error, DeblurError):
        document["error"] = error.to_json()
    elif isinstance(error, typer.TyperException):
        document["error"] = {
            "subject": getattr(getattr(error, "ctx", None), "command_path", "deblur"),
            "reason": sentence(error),
            "remedy": "see --help",
        }
    elif error is not None or code == console.EXIT_INTERRUPTED:
        ended = error is None or isinstance(error, SystemExit | KeyboardInterrupt | typer.Abort)
        document["stopped"] = "interrupted" if ended else str(error) or repr(error)
    return document


def _open_closed_streams() -> None:
    """Opens what our caller closed: files would take the places of the streams otherwise.

    Standard output can then only be read, so that what is printed is not lost in silence.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            setattr(sys, name, open(handle, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109
    except OSError:
        return False


def _end(signal_number: int, frame: FrameType | None) -> None:
    """Lets ``kill`` remove half-written files, as Ctrl-C does."""
    del frame
    raise SystemExit(128 + signal_number)


def sentence(error: typer.TyperException) -> str:
    """Typer's message in the form of ours: one line, small first letter, no full stop."""
    text = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in (
        (r"Input should be a valid integer.*", "not a whole number"),
        (r"Input should be a valid (number|float|decimal).*", "not a number"),
        (r"Input should be less than or equal to (\S+)", r"more than \1"),
        (r"Input should be greater than or equal to (\S+)", r"less than \1"),
        # Options that are merely somewhat alike, such as --codec for --model, mislead.
        (r"(No such option: )(\S+) \(.*\)", r"\1\2"),
    ):
        text = re.sub(theirs, ours, text)
    name = getattr(error, "option_name", None)
    near = difflib.get_close_matches(
        name or "", getattr(error, "possibilities", None) or (), 1, 0.8
    )
    if near:
        text += f" (do you mean {near[0]}?)"
    return text[:1].lower() + text[1:]
