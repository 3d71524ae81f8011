"""How help looks: options under headings, as wide as the terminal, in the words of people.

Typer can do the headings too, but only through rich, which takes longer to load than the rest
of ``deblur --help`` and draws boxes into pipes.
"""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""What the context of every command is made with."""


class Command(TyperCommand):
    """A command whose options stand under the headings that they name."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_options(self, ctx, formatter)


def write_options(command: Any, context: Any, formatter: Any) -> None:
    """Writes arguments and options, each under the heading that it names, others last."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    last: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        name, text = record
        # Python's types are no words for users, and a range is said by the metavar or the help.
        name = re.sub(r"<(int|float)( range)?>", "N", re.sub(r" <(list\[.*\]|str|path)>", "", name))
        text = re.sub(r"(; )?([-\d.]+<=?)?x[<>]=?[-\d.]+(?=\]$)", "", text)
        row = (name, text.removesuffix("[]").rstrip())
        if parameter.param_type_name == "argument":
            sections["Arguments"].append(row)
        elif parameter.is_eager:  # --help, --version and their like
            last.append(row)
        else:
            heading = getattr(parameter, "rich_help_panel", None) or "Options"
            sections.setdefault(heading, []).append(row)
    sections.setdefault("Other options" if len(sections) > 2 else "Options", []).extend(last)
    for heading, rows in sections.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)
