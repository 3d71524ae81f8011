"""``deblur compare``: a before/after slider in one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deblurcli.cli import console, options


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A picture, or a folder.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The same, restored.")],
    sharp: Annotated[
        Path | None,
        typer.Argument(metavar="SHARP", show_default=False, help="The ground truth, if any."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")
    ] = Path("compare.html"),
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="A,B[,C]",
            show_default=False,
            help="Other names than Before,After,Sharp.",
        ),
    ] = "",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Put two pictures, or two folders of them, under before/after sliders in one page.

    Pictures in folders belong together when they have the same name; photo-sharp.jpg also
    belongs to photo.jpg. The page needs no network and can be sent to others as it is.
    """
    console.start(quiet=quiet, verbose=verbose)

    from deblurcli.evaluation.comparison import write_comparison

    sliders = write_comparison(
        output,
        before,
        after,
        sharp,
        labels=[label.strip() for label in labels.split(",") if label.strip()],
        overwrite=overwrite,
    )
    if json:
        console.print_json({"page": str(output), "sliders": sliders})
    elif not quiet:
        noun = "slider" if sliders == 1 else "sliders"
        console.say(f"{output}: {sliders} {noun}, {output.stat().st_size / 2**20:.1f} MiB")
    return 0
