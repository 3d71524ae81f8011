"""A folder that pairs are written to: PNG files, complete pairs only, and how they were made."""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from deblurcli.data.pictures import write_png
from deblurcli.errors import UsageError, already_exists, cannot_write
from deblurcli.io.files import atomic_output
from deblurcli.io.image import Image


@dataclass(frozen=True)
class PairFolder:
    """Pairs in folders beside each other, such as ``blur/NAME.png`` and ``sharp/NAME.png``."""

    root: Path
    kinds: tuple[str, ...]  # the names of these folders
    # All that decides what the pairs are: ``made.json`` keeps it, so that others don't mix in.
    settings: Mapping[str, object]
    overwrite: bool = False
    skip_existing: bool = False

    def check(self, inputs: Iterable[Path] = ()) -> None:
        """Finds out before any work whether pairs may be written; touches nothing. Raises
        UsageError where one of the inputs lies where pairs are written, and would be deleted as an
        older pair; where there are pairs already, and neither overwrite nor skip_existing is set;
        or where they were made with other settings."""
        there = {path.resolve(): path for path in self._present()}
        own = next((path for path in inputs if path.resolve() in there), None)
        if own is not None:
            raise UsageError(own, "lies where the pairs are to be written", "give another -o")
        if self.overwrite:
            return
        if there and not self.skip_existing:
            remedy = "give another -o, --overwrite to replace or --skip-existing to go on"
            raise already_exists(next(iter(there.values())), remedy)
        made, kept = self.root / "made.json", None
        with suppress(OSError, ValueError):
            kept = json.loads(made.read_text("utf-8"))
        if (there or kept) and kept != json.loads(json.dumps(self.settings)):
            remedy = "give the same settings and sources, another -o, or --overwrite"
            raise UsageError(made, "the pairs there were made with other settings", remedy)

    def begin(self) -> None:
        """Makes the folders and notes the settings; with overwrite, clears what is there."""
        try:
            if self.overwrite:
                # A left over blurred picture would be paired with a new sharp one.
                for path in self._present():
                    path.unlink()
            for kind in self.kinds:
                (self.root / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.root, error) from error
        with atomic_output(self.root / "made.json", overwrite=True) as part:
            part.write_text(json.dumps(self.settings, indent=2) + "\n", "utf-8")

    def holds(self, name: str) -> bool:
        """Whether the pair is complete."""
        return all(self._path(kind, name).is_file() for kind in self.kinds)

    def holds_any(self) -> bool:
        """Whether any picture is there, also of kinds that aren't made now."""
        return bool(self._present())

    def write(self, name: str, pictures: Mapping[str, Image]) -> None:
        """Writes one pair, pictures by kind: all its files or, if anything fails, none; DeblurError
        says why. Safe in threads. The name may lead into a sub-folder."""
        with ExitStack() as stack:
            for kind, pixels in pictures.items():
                target = self._path(kind, name)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # Existing files can only be half of a pair that was cut off in the middle.
                    part = stack.enter_context(atomic_output(target, overwrite=True))
                    write_png(part, pixels)
                except OSError as error:
                    raise cannot_write(target, error) from error

    def _path(self, kind: str, name: str) -> Path:
        return self.root / kind / f"{name}.png"

    def _present(self) -> list[Path]:
        kinds = ("blur", "blur_gamma", "sharp")
        return sorted(path for kind in kinds for path in (self.root / kind).rglob("*.png"))
