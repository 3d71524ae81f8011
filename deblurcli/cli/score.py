"""``deblur score``: which photos are blurred, by how much, and whether restoring helps."""

import csv as csv_module
import sys
from itertools import chain

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.cli.options import argument, option
from deblurcli.errors import EXIT_FAILED, DeblurError, UsageError, one_line

FIELDS = ("path", "verdict", "change", "blur_px")


def score(
    *,
    paths: list[str] = argument("PATH", "Photos and folders."),
    recursive: options.Recursive = False,
    csv: bool = option(False, f"Print a table for spreadsheets: {','.join(FIELDS)}"),
    sort: bool = option(False, "The most blurred photos first."),
    weights: options.Weights = "default",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    offline: options.Offline = False,
    json: options.Json = False,
) -> int:
    """Tell which photos are blurred by motion, and by how much.

    It is the network's own answer on parts of them: CHANGE is how much it changes the edges,
    relative to them. Below 0.24 a photo counts as sharp and is best left alone, from 0.30 on as
    blurred, and restoring helps. BLUR is the length of motion blur, in pixels, at which photos
    change so much; 8 is 8 or more.
    """
    if csv and json:
        raise UsageError("--csv", "contradicts --json", "give one of them")
    if "-" in paths:
        raise UsageError("-", "photos through a pipe are not scored", "give photos or folders")

    from deblurcli.batch.estimate import estimate_blur
    from deblurcli.batch.plan import find_inputs
    from deblurcli.io import photos

    found = dict.fromkeys(chain(*find_inputs(paths, recursive=recursive).values()))
    deblurrer = options.ComputeOptions(device, precision, offline=offline).load(weights)
    rows: list[dict[str, float | str]] = []
    errors: list[DeblurError] = []
    width = max(len(one_line(str(path))) for path in found)

    def show(row: dict[str, float | str]) -> None:
        facts = f"change {row['change']:4.2f}  blur {row['blur_px']:4.1f} px"
        path = one_line(str(row["path"]))
        print(f"{path:<{width}}  {row['verdict']:<16}  {facts}", flush=True)

    with console.progress(len(found), "photo") as bar:
        for path in found:
            try:
                estimate = estimate_blur(deblurrer, photos.read(path).pixels)
            except DeblurError as error:
                if error.exit_code != EXIT_FAILED:
                    raise  # the next photo would fail the same way
                errors.append(error)
                console.say_errors(error)
            else:
                rows.append({"path": str(path), **estimate.to_json()})
                if not (json or csv or sort):
                    bar.clear()
                    show(rows[-1])
            bar.update()
    if sort:
        rows.sort(key=lambda row: row["change"], reverse=True)
    if json:
        failures = [error.to_json() for error in errors]
        console.print_json({"version": __version__, "photos": rows, "failures": failures})
    elif csv:
        writer = csv_module.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif sort:
        for row in rows:
            show(row)
    return EXIT_FAILED if errors else 0
