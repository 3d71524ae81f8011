"""The command line: ``deblur PATH...`` beside ``deblur COMMAND ...``.

The group's own callback is the default command, `restore`. Whether the first word names a
command decides which of the two parsers gets the words. Modules that need torch are imported
inside the commands' functions, so that ``deblur --help`` answers at once.
"""

import ctypes
import difflib
import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from deblurcli import __version__
from deblurcli.cli import (
    compare,
    console,
    data,
    eval,  # noqa: A004  (the command's name)
    info,
    options,
    restore,
    score,
    serve,
    train,
    watch,
    weights,
)
from deblurcli.cli.help import SETTINGS, Command, man_page, write_help
from deblurcli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, DeblurError, UsageError

if TYPE_CHECKING:  # no part of Typer's interface, so never imported
    from typer._click import Context

__all__ = ["main"]


class DefaultCommandGroup(TyperGroup):
    """A group whose words are paths for its own callback, unless the first names a command."""

    allow_interspersed_args = True

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: "Context | None" = None,
        **extra: object,
    ) -> "Context":
        # As wide as the terminal, but not so wide that lines are hard to follow.
        extra["terminal_width"] = max(20, min(shutil.get_terminal_size().columns, 110) - 2)
        if args[:1] == ["help"] and "--man" in args:
            print(man_page(self), end="")
            raise typer.Exit
        if args[:1] == ["help"]:  # as other programs have it: help, help train
            topic = args[1:2]
            if topic and topic[0] not in self.commands and not topic[0].startswith("-"):
                self.check_words(topic, "no such command")
                raise UsageError(topic[0], "no such command", "see 'deblur --help'")
            args = [*args[1:], "--help"]
        elif args[:1] == ["version"]:
            args = ["--version", *args[1:]]
        if args and args[0] in self.commands:
            name, *rest = args
            command = self.commands[name]
            return command.make_context(f"{info_name} {name}", rest, parent=parent, **extra)
        words = list(args)
        try:
            context = super().make_context(info_name, args, parent=parent, **extra)
        except typer.TyperException as error:
            self.check_words(words, sentence(error))
            raise
        if not extra.get("resilient_parsing"):
            self.check_words(words[:1], "no such file and no such command")
            if not words:
                print(context.get_help(), file=sys.stderr)
                raise typer.Exit(EXIT_USAGE)
        return context

    def check_words(self, words: list[str], reason: str) -> None:
        """Raises UsageError for a word that is a mistyped or misplaced command, and no path."""
        for before, word in zip(("", *words), words, strict=False):
            # --weights resembles one, but is an option; "inf" after --strength, a value.
            if not word.startswith("-") and not before.startswith("-"):
                near = difflib.get_close_matches(word, list(self.commands), 1, cutoff=0.75)
                if near and not os.path.lexists(word):
                    hint = f"for the command '{near[0]}', write: deblur {near[0]} ..."
                    raise UsageError(word, reason, hint)

    def invoke(self, ctx: "Context") -> object:
        if ctx.command is not self:
            return ctx.command.invoke(ctx)
        return super().invoke(ctx)

    format_options = write_help
    format_epilog = Command.format_epilog


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
app.callback()(options.spread(restore.restore))
options.command(app, "train", epilog=train.EPILOG)(train.train)
options.command(app, "eval")(eval.evaluate)
options.command(app, "compare")(compare.compare)
options.command(app, "score")(score.score)
options.command(app, "serve")(serve.serve)
options.command(app, "watch")(watch.watch)
options.command(app, "info")(info.info)
app.add_typer(data.app, name="data", context_settings=SETTINGS)
app.add_typer(weights.app, name="weights", context_settings=SETTINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line, the words after ``deblur``, by default those of the process.

    Gives the exit code, as in docs/command-line.md. With ``--json`` standard output gets one
    document, whatever happens.
    """
    prepare_process()
    words = list(sys.argv[1:] if arguments is None else arguments)
    flags = words[: words.index("--")] if "--" in words else words
    has_json, text = "--json" in flags, io.StringIO()
    is_text = words[:1] in (["help"], ["version"]) or {"-h", "--help", "--version"} & {*flags}
    console.json_is_printed = False
    document: dict[str, object] = {}
    try:
        with redirect_stdout(text) if has_json and is_text else nullcontext():
            code = run(words)
    except typer.TyperException as error:
        subject = getattr(getattr(error, "ctx", None), "command_path", "deblur")
        wrong = UsageError(subject, sentence(error), f"see '{subject} --help'")
        console.say(f"deblur: {wrong.reason}; {wrong.remedy}")
        code, document["error"] = error.exit_code, wrong.to_json()
    except DeblurError as error:
        console.say_errors(error)
        code, document["error"] = error.exit_code, error.to_json()
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except SystemExit as error:
        code, document["stopped"] = int(error.code or 0), "interrupted"
    except BrokenPipeError:
        console.silence_stdout()
        code = EXIT_FAILED
    except Exception as error:
        if has_json and not console.json_is_printed:
            document = {"exit_code": EXIT_FAILED, "stopped": str(error) or repr(error)}
            console.print_json({"version": __version__, **document})
        raise
    if code > 128:  # Typer makes it of KeyboardInterrupt, `stop` of other signals
        go_on = "; what is done is kept, go on with --skip-existing"
        console.say(f"deblur: interrupted{HOW_TO_GO_ON.get(words[0] if words else '', go_on)}")
        document["stopped"] = "interrupted"
    if text.getvalue():
        document["text"] = text.getvalue()
    # Where a command came to no document of its own.
    if has_json and (code or document) and not console.json_is_printed:
        with suppress(OSError):
            console.print_json({"version": __version__, "exit_code": code, **document})
    return code


def prepare_process() -> None:
    """Sets what holds for a whole process: its streams, signals, threads and memory."""

    def stop(signal_number: int, _: object) -> None:
        """Lets ``kill`` remove half-written files, as Ctrl-C does."""
        sys.exit(128 + signal_number)

    # What our caller closed is opened: files would take the places of the streams otherwise.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    for ending in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, ending, None)
        # nohup has it ignored, and that is to stay so.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
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


def run(words: Sequence[str]) -> int:
    """Runs one command line; what is wrong with its streams and folder is a `DeblurError`."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        reason, remedy = "it was deleted", "change to one that is there"
        raise UsageError("current folder", reason, remedy) from error
    # An unset variable; as a path it would be the whole current folder.
    if any(re.fullmatch(r"(--[a-z-]+=)?", word) for word in words):
        raise UsageError("''", "an empty name", "check the variable that it comes from")
    try:
        result = app(args=list(words), prog_name="deblur", standalone_mode=False)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        reason = "is not installed, and what was asked for needs it"
        raise UsageError("torch", reason, "pip install torch") from error
    except OSError as error:
        if error.filename is not None or error.errno not in console.NO_ROOM:
            raise
        console.silence_stdout()
        raise DeblurError("standard output", "the disk is full", "free some space") from error
    return result if isinstance(result, int) else 0


def sentence(error: typer.TyperException) -> str:
    """Typer's message in the form of ours: one line, small first letter, no full stop."""
    text = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    # Options that are merely somewhat alike, such as --codec for --model, mislead.
    text = re.sub(r"(No such option: )(\S+) \(.*\)", r"\1\2", text)
    name = getattr(error, "option_name", None) or ""
    near = difflib.get_close_matches(name, getattr(error, "possibilities", None) or (), 1, 0.8)
    if near:
        text += f" (do you mean {near[0]}?)"
    return text[:1].lower() + text[1:]
