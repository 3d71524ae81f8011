"""``deblur data synth``: pairs of blurred and sharp pictures from sharp photos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deblurcli.cli import console, options
from deblurcli.cli.data_options import Output, Seed, say_end, say_plan
from deblurcli.errors import DeblurError, UsageError

if TYPE_CHECKING:
    from deblurcli.config import Recipe
    from deblurcli.data.make_pairs.photo_blurring import Blurring, Photo


def make_from_photos(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...", show_default=False, help="Sharp photos, or folders of them."
        ),
    ],
    output: Output,
    count: Annotated[int, typer.Option("--count", min=1, help="Pairs of each photo.")] = 1,
    size: Annotated[
        int, typer.Option("--size", metavar="PX", min=16, help="Side of the pictures.")
    ] = 512,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            show_default=False,
            help="Change what is drawn: path_px, rotation_degrees, objects, encoded, noise, "
            "jpeg, ... as in 'deblur train --show-recipe'; repeatable.",
        ),
    ] = None,
    seed: Seed = 0,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    skip_existing: options.SkipExisting = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """Blur sharp photos by simulated motion of camera and objects.

    Writes DIR/blur and DIR/sharp, as PNG. The same photos, settings and seed give the same
    files. ('deblur train' takes sharp photos as they are, and blurs them anew in every step.)
    """
    console.start(quiet=quiet, verbose=verbose)
    options.refuse_contradiction(overwrite=overwrite, skip_existing=skip_existing)
    from deblurcli.data.make_pairs.pair_folder import PairFolder
    from deblurcli.data.make_pairs.photo_blurring import KINDS as FOLDERS
    from deblurcli.data.make_pairs.photo_blurring import (
        Blurring,
        find_photos,
        pair_names,
        write_pairs,
    )
    from deblurcli.devices import choose_device

    blurring = Blurring(count, size, seed, _change_recipe(settings or []))
    photos = find_photos(sources, leave_out=[output])
    folder = PairFolder(
        output,
        FOLDERS,
        _describe(blurring, photos),
        overwrite=overwrite,
        skip_existing=skip_existing,
    )
    folder.check(photo.path for photo in photos)
    if dry_run:
        planned = [
            (str(photo.path), f"{output / 'blur' / name}.png")
            for photo in photos
            for name in pair_names(photo, blurring)
        ]
        say_plan(planned, json=json)
        return 0
    written: list[str] = []
    failures: list[DeblurError] = []
    with console.progress(len(photos) * count, "pair", quiet=quiet) as bar:
        for result in write_pairs(photos, blurring, choose_device(device), folder):
            if isinstance(result, DeblurError):
                failures.append(result)
            elif result is not None:
                written.append(result)
            bar.update()
    return say_end(len(written), output, failures, {"pairs": written}, json=json, quiet=quiet)


def _change_recipe(settings: list[str]) -> Recipe:
    """The default recipe with other motion, noise or JPEG; nothing else of it has a meaning."""
    from deblurcli.config import Recipe, change_recipe

    names = [setting.partition("=")[0] for setting in settings]
    recipe = Recipe()
    known = {"noise", "jpeg"} | set(asdict(recipe.motion))
    for name in names:
        if name.removeprefix("motion.") not in known:
            raise UsageError(
                f"--set {name}", "there is no such value", f"one of: {', '.join(sorted(known))}"
            )
    return change_recipe(
        recipe,
        [
            setting if setting.startswith(("noise=", "jpeg=", "motion.")) else f"motion.{setting}"
            for setting in settings
        ],
    )


def _describe(blurring: Blurring, photos: list[Photo]) -> dict[str, Any]:
    """All that decides what the pairs are. More of each photo may be made later, as long as
    their names stay: `pair_names` pads the numbers."""
    return {
        "command": "data synth",
        "photos": [photo.name for photo in photos],
        "digits": len(str(blurring.count)),
        "size_px": blurring.size_px,
        "seed": blurring.seed,
        "noise": blurring.recipe.noise,
        "jpeg": blurring.recipe.jpeg,
        "motion": asdict(blurring.recipe.motion),
    }
