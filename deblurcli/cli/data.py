"""``deblur data``: pairs of blurred and sharp pictures, from fast video or from sharp photos."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.cli.options import REQUIRED, argument, option, whole_number
from deblurcli.errors import DeblurError, UsageError, logger, one_line

app = console.make_group("Make pairs of blurred and sharp pictures.")
KINDS = {"linear": ("blur",), "gamma": ("blur_gamma",), "both": ("blur", "blur_gamma")}


@dataclass(frozen=True)
class DataSetOptions:
    """Where pairs go, and how what is made is told."""

    output: Path = option(REQUIRED, "Where the data set goes.", "DIR", "-o")
    seed: int = whole_number(0, "Decides everything random.", 0)
    dry_run: options.DryRun = False
    json: options.Json = False

    def say_plan(self, planned: Iterable[tuple[Path, str]], failures: Sequence[DeblurError]) -> int:
        """``--dry-run``: what would be made from which source; gives the exit code."""
        pairs = list(planned)
        lines = "\n".join(one_line(f"{source} -> {target}") for source, target in pairs)
        entries = [{"source": str(source), "output": target} for source, target in pairs]
        document = {"version": __version__, "planned": entries}
        console.print_result(lines, document, json=self.json)
        return console.say_errors(*failures)

    def say_end(self, made: int, failures: Sequence[DeblurError], **about: object) -> int:
        """What was made and what failed; gives the exit code."""
        code = console.say_errors(*failures)
        if self.json:
            head = {"version": __version__, "output": str(self.output), "made": made}
            errors = [error.to_json() for error in failures]
            console.print_json({**head, **about, "failures": errors})
        else:
            console.note(f"deblur: made {made} pair{'' if made == 1 else 's'} in {self.output}")
        return code


@options.command(app, "frames")
def make_from_frames(
    *,
    sources: list[Path] = argument("SOURCE", "Videos of 120 fps or more, frames, folders of such."),
    frames: str = option(
        "7..13",
        "How many successive frames are averaged: odd numbers are drawn from this range.",
        "N|N..M",
        parser=options.matching(r"\d+(\.\.\d+)?", "a number or a range such as 7..13"),
    ),
    blur: options.Blur = option(
        "both",
        "Average frames as they are (GOPRO's blur), through the gamma curve (blur_gamma), or both.",
    ),
    gamma: float = option(2.2, "The camera's gamma curve.", "N", parser=options.number(1.0, 4.0)),
    every: int | None = whole_number(None, "Begin a pair every N frames; else after the last.", 1),
    split: Literal["train", "test", "val"] = option("train", "The part of the data set."),
    fps: float | None = option(
        None, "Frames per second when it was recorded.", "N", parser=options.number(0.1)
    ),
    existing: options.ExistingOptions,
    target: DataSetOptions,
) -> int:
    """Average successive frames of fast video, as the paper did.

    The middle one is the sharp one. Writes GOPRO's layout: DIR/train/CLIP/blur, blur_gamma and
    sharp. The same seed gives the same files.
    """
    from deblurcli.data.make_pairs.clips import find_clips
    from deblurcli.data.make_pairs.frame_averaging import MIN_FPS, SHARP, Averaging, write_pairs
    from deblurcli.data.make_pairs.pair_folder import PairFolder

    low, _, high = frames.partition("..")
    averaging = Averaging(int(low), int(high or low), KINDS[blur], gamma, every, target.seed)
    clips, failures = find_clips(sources, leave_out=[target.output])
    folders = {}
    for clip in clips:
        rate = fps or float(clip.fps or MIN_FPS)
        if rate < MIN_FPS:
            logger.warning(
                f"{clip.source}: {rate:g} frames per second, less than {MIN_FPS}: moving things "
                "will show as copies instead of blur; 'deblur data synth' makes smooth blur from "
                "sharp photos, --fps tells the true rate of slow motion"
            )
        folder = folders[clip.name] = PairFolder(
            target.output / split / clip.name,
            (*averaging.kinds, SHARP),
            {"command": "data frames", "source": clip.source.name, **asdict(averaging)},
            **vars(existing),
        )
        folder.check(clip.files or (clip.source,))
    if target.dry_run:
        mean = averaging.every or (averaging.min_frames + averaging.max_frames) / 2
        planned = []
        for clip in clips:
            about = str(folders[clip.name].root)
            if clip.frame_count is not None and not target.json:
                about += f", about {clip.frame_count / mean:.0f} pairs"
            planned.append((clip.source, about))
        return target.say_plan(planned, failures)
    made, report = 0, []
    counts = [clip.frame_count for clip in clips]
    total = None if None in counts else sum(count or 0 for count in counts)
    with console.progress(total, "frame") as bar:
        for clip in clips:
            folder, pairs, failed = folders[clip.name], [], len(failures)
            for result in write_pairs(clip, averaging, folder, bar.update):
                if isinstance(result, DeblurError):
                    failures.append(result)
                    continue
                pairs.append(
                    {"name": result.name, "first": result.first_frame, "frames": result.frame_count}
                )
            if len(failures) == failed and not folder.holds_any():
                reason = f"no {averaging.min_frames} frames follow each other in it without a gap"
                remedy = "give a longer clip, or fewer --frames"
                failures.append(DeblurError(clip.source, reason, remedy))
            made += len(pairs)
            facts = {"name": clip.name, "source": str(clip.source), "folder": str(folder.root)}
            fps_of_clip = None if clip.fps is None else float(clip.fps)
            report.append({**facts, "fps": fps_of_clip, "pairs": pairs})
    return target.say_end(made, failures, clips=report)


@options.command(app, "synth")
def make_from_photos(
    *,
    sources: list[Path] = argument("PHOTO", "Sharp photos, or folders of them."),
    count: int = whole_number(1, "Pairs of each photo.", 1),
    size: int = option(512, "Side of the pictures.", "PX", parser=options.number(16, kind=int)),
    settings: list[str] | None = option(
        None,
        "Change what is drawn: path_px, rotation_degrees, objects, encoded, noise, jpeg, ... as in "
        "'deblur train --show-recipe'; repeatable.",
        "NAME=VALUE",
        "--set",
    ),
    device: options.Device = "auto",
    existing: options.ExistingOptions,
    target: DataSetOptions,
) -> int:
    """Blur sharp photos by simulated motion of camera and objects.

    Writes DIR/blur and DIR/sharp, as PNG. The same photos, settings and seed give the same
    files. ('deblur train' takes sharp photos as they are, and blurs them anew in every step.)
    """
    from deblurcli.config import Recipe, change_recipe
    from deblurcli.data.make_pairs import photo_blurring as blurring
    from deblurcli.data.make_pairs.pair_folder import PairFolder
    from deblurcli.devices import choose_device

    # Of a recipe only motion, noise and JPEG have a meaning here.
    known = {"noise", "jpeg"} | set(asdict(Recipe().motion))
    changes = []
    for setting in settings or ():
        name = setting.removeprefix("motion.").partition("=")[0]
        if name not in known:
            remedy = f"one of: {', '.join(sorted(known))}"
            raise UsageError(f"--set {name}", "there is no such value", remedy)
        is_motion = name not in ("noise", "jpeg") and not setting.startswith("motion.")
        changes.append(f"motion.{setting}" if is_motion else setting)
    recipe = change_recipe(Recipe(), changes)
    how = blurring.Blurring(count, size, target.seed, recipe)
    photos = blurring.find_photos(sources, leave_out=[target.output])
    folder = PairFolder(
        target.output,
        blurring.KINDS,
        # All that decides what the pairs are. More of each photo may be made later, as long as
        # their names stay: `pair_names` pads the numbers.
        {
            "command": "data synth",
            "photos": list(photos),
            "digits": len(str(count)),
            "size_px": size,
            "seed": target.seed,
            "noise": recipe.noise,
            "jpeg": recipe.jpeg,
            "motion": asdict(recipe.motion),
        },
        **vars(existing),
    )
    folder.check(photos.values())
    if target.dry_run:
        planned = (
            (path, f"{target.output / 'blur' / name}.png")
            for photo, path in photos.items()
            for name in blurring.pair_names(photo, how)
        )
        return target.say_plan(planned, [])
    written: list[str] = []
    failures: list[DeblurError] = []
    with console.progress(len(photos) * count, "pair") as bar:
        for result in blurring.write_pairs(photos, how, choose_device(device), folder):
            if isinstance(result, DeblurError):
                failures.append(result)
            elif result is not None:
                written.append(result)
            bar.update()
    return target.say_end(len(written), failures, pairs=written)
