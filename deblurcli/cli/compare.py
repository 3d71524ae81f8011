"""``deblur compare``: before/after sliders in one page."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deblurcli.cli import console, options
from deblurcli.cli.options import argument, option
from deblurcli.errors import UsageError

if TYPE_CHECKING:
    from deblurcli.evaluation.comparison import WrittenPage


def compare(
    *,
    before: Path = argument("BEFORE", "A picture, a video, or a folder."),
    after: Path = argument("AFTER", "The same, restored."),
    sharp: Path | None = argument("SHARP", "The ground truth, if any.", None),
    output: Path = option(Path("compare.html"), "The page to write.", "FILE.html", "-o"),
    labels: str = option("", "Other names than Before,After,Sharp.", "A,B[,C]"),
    one_file: bool = option(False, "One file in any case: pictures are reduced if need be."),
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Put pictures or videos under before/after sliders in one page.

    Files in two folders belong together when they have the same name; photo-sharp.jpg also belongs
    to photo.jpg. The page needs no network. What is too large for one file lies in a folder
    beside it.
    """
    check_page(output)
    from deblurcli.evaluation.comparison import write_comparison

    with console.progress(None, " sliders") as bar:
        page = write_comparison(
            output,
            before,
            after,
            sharp,
            labels=[label.strip() for label in labels.split(",") if label.strip()],
            one_file=one_file,
            overwrite=overwrite,
            on_progress=partial(show_progress, bar),
        )
    report_page(page, json=json)


def show_progress(bar: "console.ProgressBar", done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def check_page(page: Path) -> None:
    """Raises UsageError for what would not be taken for a page."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(page, "is no name of a page", "let it end in .html")


def report_page(page: "WrittenPage", *, json: bool) -> None:
    """Says what was written."""
    if json:
        folder = None if page.folder is None else str(page.folder)
        document = {"page": str(page.path), "sliders": page.sliders, "bytes": page.size_bytes}
        console.print_json({**document, "folder": folder, "reduced": page.reduced})
        return
    noun = "slider" if page.sliders == 1 else "sliders"
    text = f"{page.path}: {page.sliders} {noun}, {page.size_bytes / 2**20:.1f} MiB"
    if page.folder is not None:
        text += f" with {page.folder}, which belongs beside it (--one-file does without)"
    if page.reduced:
        text += ", pictures reduced (leave out --one-file for their full size)"
    console.note(text)
