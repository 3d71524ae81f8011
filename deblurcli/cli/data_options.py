"""What the commands of ``deblur data`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deblurcli import __version__
from deblurcli.cli import console
from deblurcli.errors import DeblurError

Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where the data set goes.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides everything random.")]


def say_plan(planned: list[tuple[str, str]], *, json: bool) -> None:
    """Lists what would be made: from which source, and what or where."""
    if json:
        entries = [{"source": source, "output": output} for source, output in planned]
        console.print_json({"version": __version__, "planned": entries})
    else:
        for source, output in planned:
            print(console.one_line(f"{source} -> {output}"))


def say_end(
    made: int,
    output: Path,
    failures: list[DeblurError],
    document: dict[str, Any],
    *,
    json: bool,
    quiet: bool,
) -> int:
    """Says what was made and what failed; gives the exit code."""
    for error in failures:
        console.say_error(error)
    if json:
        errors = [{"subject": e.subject, "reason": e.reason, "remedy": e.remedy} for e in failures]
        head = {"version": __version__, "output": str(output), "made": made}
        console.print_json({**head, **document, "failures": errors})
    elif not quiet:
        console.say(f"deblur: made {made} pair{'' if made == 1 else 's'} in {output}")
    return console.EXIT_FAILED if failures else 0
