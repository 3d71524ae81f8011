"""How help looks: options under headings, as wide as the terminal, in the words of people.

Typer can do the headings too, but only through rich, which takes longer to load than the rest
of ``deblur --help`` and draws boxes into pipes.
"""

import inspect
import re
from typing import TYPE_CHECKING, TypeAlias

from typer.core import TyperCommand, TyperGroup

from deblurcli import __version__
from deblurcli.errors import EXIT_CODES

if TYPE_CHECKING:  # no part of Typer's interface, so never imported
    from typer._click import Command as AnyCommand
    from typer._click import Context, HelpFormatter

Sections: TypeAlias = dict[str, list[tuple[str, str]]]  # rows of a term and its text, by heading

SETTINGS = {"help_option_names": ["-h", "--help"]}  # what the context of every command is made with


def write_help(command: "AnyCommand", ctx: "Context", formatter: "HelpFormatter") -> None:
    """Writes what follows the summary: options under their headings, commands, examples."""

    def write(found: Sections, max_column: int) -> None:
        for heading, rows in found.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=min(max_column, formatter.width // 2 - 4))

    write(sections(command, ctx), 30)
    if isinstance(command, TyperGroup):
        command.format_commands(ctx, formatter)
    write(examples(command), 36)


class Command(TyperCommand):
    """A command with help of ours."""

    format_options = write_help

    def format_epilog(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Writes nothing: `write_help` did."""


def sections(command: "AnyCommand", context: "Context") -> Sections:
    """Arguments and options of a command as (name, text), under the headings that they name."""
    found: Sections = {"Arguments": [], "Options": []}
    last: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        # Python's types are no words for users: of <list[str]> nothing is shown, of <a|b> a|b.
        row = (re.sub(r" <(list\[.*\]|str|path)>|(?<= )<(.*)>$", r"\2", record[0]), record[1])
        if parameter.param_type_name == "argument":
            found["Arguments"].append(row)
        elif parameter.is_eager or parameter.name.endswith("_completion"):  # as --help, --version
            last.append(row)
        else:
            heading = getattr(parameter, "rich_help_panel", None) or "Options"
            found.setdefault(heading, []).append(row)
    found.setdefault("Other options" if len(found) > 2 else "Options", []).extend(last)
    return {heading: rows for heading, rows in found.items() if rows}


def examples(command: "AnyCommand") -> Sections:
    """What a command's epilog holds: blocks of a heading and lines ``term  text``."""
    found = {}
    for block in filter(None, (command.epilog or "").strip().split("\n\n")):
        heading, *lines = block.splitlines()
        rows = (re.split(r" {2,}", line.strip(), maxsplit=1) for line in lines)
        found[heading] = [(term, text[0] if text else "") for term, *text in rows]
    return found


def man_page(group: TyperGroup) -> str:
    """The manual page of the whole program, for ``man``; made from the same words as help."""
    lines = [f'.TH DEBLUR 1 "" "deblur {__version__}"', ".SH NAME"]
    lines += [_roff("deblur - remove motion blur from photos and videos")]

    def describe(command: "AnyCommand", name: str, parent: "Context | None") -> None:
        context = command.make_context(name, [], parent=parent, resilient_parsing=True)
        lines.append(f".SH {'SYNOPSIS' if parent is None else _roff(name).upper()}")
        lines.append(_roff(f"{name} {' '.join(command.collect_usage_pieces(context))}"))
        lines.extend([".PP", _roff(inspect.cleandoc(command.help or ""))])
        for heading, rows in (sections(command, context) | examples(command)).items():
            lines.append(f".SS {_roff(heading)}")
            for term, text in rows:
                lines.extend([".TP", f"\\fB{_roff(term)}\\fR", _roff(text)])
        for word, below in getattr(command, "commands", {}).items():
            if not below.hidden:
                describe(below, f"{name} {word}", context)

    describe(group, "deblur", None)
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_CODES.items():
        lines.extend([".TP", str(code), meaning])
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    """`text` so that no letter of it is taken for a command of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").strip("\n")
    text = re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)
    return text.replace("\n\n", "\n.PP\n")
