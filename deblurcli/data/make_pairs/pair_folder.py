"""A folder that pairs are written to: PNG files, complete pairs only, and how they were made."""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli.data.pictures import write_png
from deblurcli.errors import UsageError, already_exists, cannot_write
from deblurcli.io.files import atomic_output

Pixels = NDArray[np.uint8]


class PairFolder:
    """Pairs in folders beside each other, such as ``blur/NAME.png`` and ``sharp/NAME.png``.

    `kinds` are the names of these folders, `settings` all that decides what the pairs are. They
    are kept in ``made.json``, so that nothing made with other settings gets mixed in.
    """

    def __init__(
        self,
        root: Path,
        kinds: tuple[str, ...],
        settings: Mapping[str, object],
        *,
        overwrite: bool = False,
        skip_existing: bool = False,
    ) -> None:
        self.root, self.kinds, self._made = root, kinds, root / "made.json"
        self._settings = json.loads(json.dumps(settings))
        self._overwrite, self._skip_existing = overwrite, skip_existing

    def check(self, inputs: Iterable[Path] = ()) -> None:
        """Finds out before any work whether pairs may be written; touches nothing.

        Raises UsageError where one of the inputs lies where pairs are written, and would be
        deleted as an older pair; where there are pairs already, and neither overwrite nor
        skip_existing is set; or where they were made with other settings.
        """
        there = {path.resolve(): path for path in self._present()}
        own = next((path for path in inputs if path.resolve() in there), None)
        if own is not None:
            raise UsageError(own, "lies where the pairs are to be written", "give another -o")
        if self._overwrite:
            return
        if there and not self._skip_existing:
            remedy = "give another -o, --overwrite to replace or --skip-existing to go on"
            raise already_exists(next(iter(there.values())), remedy)
        kept: object = None
        with suppress(OSError, ValueError):
            kept = json.loads(self._made.read_text("utf-8"))
        if (there or kept) and kept != self._settings:
            remedy = "give the same settings and sources, another -o, or --overwrite"
            reason = "the pairs there were made with other settings"
            raise UsageError(self._made, reason, remedy)

    def begin(self) -> None:
        """Makes the folders and notes the settings; with overwrite, clears what is there."""
        try:
            if self._overwrite:
                # A left over blurred picture would be paired with a new sharp one.
                for path in self._present():
                    path.unlink()
            for kind in self.kinds:
                (self.root / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.root, error) from error
        with atomic_output(self._made, overwrite=True) as part:
            part.write_text(json.dumps(self._settings, indent=2) + "\n", "utf-8")

    def holds(self, name: str) -> bool:
        """Whether the pair is complete."""
        return all(self._path(kind, name).is_file() for kind in self.kinds)

    def holds_any(self) -> bool:
        """Whether any picture is there, also of kinds that aren't made now."""
        return bool(self._present())

    def write(self, name: str, pictures: Mapping[str, Pixels]) -> None:
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
