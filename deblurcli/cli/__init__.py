"""The command line: ``deblur PATH...`` beside ``deblur COMMAND ...``.

The group's own callback is the default command, `restore`. Whether the first word names a
command decides which of the two parsers gets the words. Modules that need torch are imported
inside the commands' functions, so that ``deblur --help`` answers at once.
"""

from __future__ import annotations

import ctypes
import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, TypedDict

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
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: object
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
        words, suspects = list(args), args[:1]
        reason, refused = "no such file and no such command", None
        try:
            context = super().make_context(info_name, args, parent=parent, **extra)
        except typer.TyperException as error:
            refused, reason, suspects = error, sentence(error), words
        if refused or not extra.get("resilient_parsing"):
            # A mistyped or misplaced command is no path.
            for before, word in zip(("", *words), suspects, strict=False):
                # --weights resembles one, but is an option; "inf" after --strength, a value.
                if not word.startswith("-") and not before.startswith("-"):
                    near = difflib.get_close_matches(word, list(self.commands), 1, cutoff=0.75)
                    if near and not os.path.lexists(word):
                        hint = f"for the command '{near[0]}', write: deblur {near[0]} ..."
                        raise UsageError(word, reason, hint)
        if refused:
            raise refused
        if not words and not extra.get("resilient_parsing"):
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


HOW_TO_GO_ON = {
    "train": "; a run that had begun is saved, go on with --resume",
    "eval": "; what --csv keeps is not measured again",
    "watch": "; started again, it restores what arrived in between",
    **dict.fromkeys(("compare", "info", "score", "serve", "weights"), ""),
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
app.command("eval")(eval.evaluate)
app.add_typer(data.app, name="data", context_settings=SETTINGS)
app.add_typer(weights.app, name="weights", context_settings=SETTINGS)
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


class Failure(TypedDict, total=False):
    """What ``--json`` prints where a command came to no document of its own."""

    version: str
    exit_code: int
    stopped: str
    error: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code; see the table in docs/command-line.md.

    With ``--json`` standard output gets one document, whatever happens.

    Args:
        arguments: the words after ``deblur``; those of the process when None.
    """
    # What our caller closed is opened: files would take the places of the streams otherwise.
    # Standard output can then only be read, so that what is printed is not lost in silence.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            setattr(sys, name, open(handle, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115
    signal.signal(signal.SIGTERM, stop)
    # nohup has it ignored, and that is to stay so.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, stop)
    # PyTorch's threads would wait for each other in busy loops, and where other programs (or
    # a video's coder) want the same cores, a photo took twice to three times as long.
    # It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise
    # Memory that a layer of the network frees is for the next one. Else glibc hands blocks this
    # large back to the kernel, and to have them anew costs a sixth of a large photo's time.
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, 2**27)  # M_MMAP_THRESHOLD, bytes
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, bytes
    words = list(sys.argv[1:] if arguments is None else arguments)
    console.json_is_printed = False
    failure = Failure(version=__version__, exit_code=0)
    try:
        failure["exit_code"] = run(words)
    except typer.TyperException as error:
        subject = getattr(getattr(error, "ctx", None), "command_path", "deblur")
        console.say(f"deblur: {sentence(error)}; see '{subject} --help'")
        failure["exit_code"] = error.exit_code
        failure["error"] = {"subject": subject, "reason": sentence(error), "remedy": "see --help"}
    except DeblurError as error:
        console.say_error(error)
        failure["exit_code"], failure["error"] = error.exit_code, error.to_json()
    except (KeyboardInterrupt, typer.Abort):
        failure["exit_code"] = console.EXIT_INTERRUPTED
    except SystemExit as error:
        failure["exit_code"], failure["stopped"] = int(error.code or 0), "interrupted"
    except BrokenPipeError as error:
        console.silence_stdout()
        failure["exit_code"], failure["stopped"] = console.EXIT_FAILED, str(error)
    except Exception as error:
        failure["exit_code"], failure["stopped"] = console.EXIT_FAILED, str(error) or repr(error)
        print_failure(words, failure)
        raise
    if failure["exit_code"] == console.EXIT_INTERRUPTED:  # Typer makes it of KeyboardInterrupt
        go_on = "; what is done is kept, go on with --skip-existing"
        console.say(f"deblur: interrupted{HOW_TO_GO_ON.get(words[0] if words else '', go_on)}")
        failure["stopped"] = "interrupted"
    print_failure(words, failure)
    return failure["exit_code"]


def run(words: Sequence[str]) -> int:
    """Runs one command line; what is wrong with its streams and folder is a `DeblurError`."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        reason, remedy = "it was deleted", "change to one that is there"
        raise UsageError("current folder", reason, remedy) from error
    try:
        try:
            result = app(args=list(words), prog_name="deblur", standalone_mode=False)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise UsageError(words[0], "needs PyTorch", "pip install torch") from error
        code = result if isinstance(result, int) else 0
        try:
            sys.stdout.flush()
        except OSError:
            if code == 0:
                raise
            console.silence_stdout()  # that has been told
    except OSError as error:
        if error.filename is not None or error.errno not in (*console.NO_ROOM, errno.EBADF):
            raise
        console.silence_stdout()
        reason, remedy = "the disk is full", "free some space"
        if error.errno == errno.EBADF:
            reason, remedy = "it is closed", "leave it open"
        raise DeblurError("standard output", reason, remedy) from error
    return code


def print_failure(words: Sequence[str], failure: Failure) -> None:
    """Prints the document of ``--json`` where nothing else did."""
    options = words[: words.index("--")] if "--" in words else words
    if "--json" in options and failure["exit_code"] and not console.json_is_printed:
        with suppress(OSError):
            console.print_json(failure)


def stop(signal_number: int, frame: FrameType | None) -> None:
    """Lets ``kill`` remove half-written files, as Ctrl-C does."""
    del frame
    raise SystemExit(128 + signal_number)


def sentence(error: typer.TyperException) -> str:
    """Typer's message in the form of ours: one line, small first letter, no full stop."""
    text = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in (
        (r"Input should be a valid integer.*", "not a whole number"),
        (r"Input should be a valid number.*", "not a number"),
        (r"Input should be less than or equal to (\S+)", r"more than \1"),
        (r"Input should be greater than or equal to (\S+)", r"less than \1"),
        (r"Value error, ", ""),
        # Typer before 0.29:
        (r"\S+ is not a valid int.*", "not a whole number"),
        (r"\S+ is not in the range x>=([^<>\s]+)$", r"less than \1"),
        # Options that are merely somewhat alike, such as --codec for --model, mislead.
        (r"(No such option: )(\S+) \(.*\)", r"\1\2"),
    ):
        text = re.sub(theirs, ours, text)
    name = getattr(error, "option_name", None) or ""
    near = difflib.get_close_matches(name, getattr(error, "possibilities", None) or (), 1, 0.8)
    if near:
        text += f" (do you mean {near[0]}?)"
    return text[:1].lower() + text[1:]
