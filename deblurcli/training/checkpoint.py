"""The folder of one training run (docs/training.md lists its files): what is kept, and that it
stays intact. Every file is replaced in one move: a full disk or a killed process leaves the one
before.
"""

import csv
import os
from pathlib import Path
from typing import Any

import torch

from deblurcli.config import RunConfig
from deblurcli.errors import UsageError, WeightsError, cannot_write
from deblurcli.io.files import atomic_output
from deblurcli.models.network import RestorationNetwork
from deblurcli.models.registry import load_network
from deblurcli.weights.files import save_weights
from deblurcli.weights.manifest import ModelCard


class RunFolder:
    """Saves and loads what a run needs."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoint = self.path / "last.pt"

    def prepare(self, config: RunConfig, *, resume: bool) -> None:
        """Makes the folder and writes the configuration. Raises UsageError where it holds another
        run and `resume` is false, DeblurError where it can't be made."""
        if not resume and self.checkpoint.exists():
            remedy = "add --resume to go on with it, or give another --output"
            raise UsageError(self.path, "holds a training run already", remedy)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with atomic_output(self.config, overwrite=True) as part:
            part.write_text(config.to_json(), "utf-8")

    def save(
        self, state: dict[str, Any], ema_model: RestorationNetwork, card: ModelCard, *, best: bool
    ) -> None:
        """Saves the checkpoint: `state`, of tensors, numbers, strings, and lists and dicts of them,
        ``"metrics"`` among them, the rows of ``metrics.csv``; and the weights of the network to
        use, also as the best so far where they are. Where DeblurError is raised (a full disk, no
        permission), what was there before is intact."""
        save_weights(self.path / "last.safetensors", ema_model, card, overwrite=True)
        if best:
            save_weights(self.path / "best.safetensors", ema_model, card, overwrite=True)
        with atomic_output(self.checkpoint, overwrite=True) as part:
            try:
                torch.save(state, part)
            except RuntimeError as error:  # what torch's writer makes of a full disk
                raise OSError(28, "could not write all of it") from error
        with (
            atomic_output(self.path / "metrics.csv", overwrite=True) as part,
            part.open("w", newline="") as file,
        ):
            rows = state["metrics"]  # each set has a column from when it was first measured
            writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
            writer.writeheader()
            writer.writerows(rows)

    def load(self) -> tuple[RestorationNetwork, dict[str, Any]]:
        """The network that was trained and the whole checkpoint, on the CPU. It can hold nothing
        that would be executed. Raises WeightsError where there is none, or it is damaged."""
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            # A dict of its own: what loads a state dict leaves notes for the next one in it.
            parameters = dict(state["generator"])
            return load_network(state["network"], parameters), state
        except FileNotFoundError:
            reason = "no checkpoint to go on from"
            raise WeightsError(self.checkpoint, reason, "leave out --resume") from None
        except Exception as error:  # whatever the damage makes torch stumble on
            raise self.unusable() from error

    def unusable(self) -> WeightsError:
        """Makes the error for a checkpoint that can't be gone on from."""
        remedy = "train anew with another --output; --weights last.safetensors starts from there"
        return WeightsError(self.checkpoint, "damaged, or of another version or recipe", remedy)
