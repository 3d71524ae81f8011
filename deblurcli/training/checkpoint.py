"""The folder of one training run: what is kept, and that it stays intact.

| file | what |
|---|---|
| ``config.json`` | the whole configuration: `deblurcli.config.RunConfig` |
| ``last.pt`` | everything needed to go on: `RunFolder.load_state` |
| ``last.safetensors`` | the moving average of the weights, usable with ``--weights`` |
| ``best.safetensors`` | the same at the best validation so far |
| ``snapshots/step-N.safetensors`` | the same every so many steps, where that is asked for |
| ``metrics.csv`` | one line for each validation and each checkpoint |
| ``tensorboard/`` | for TensorBoard, where it is installed |
| ``curves.png``, ``samples.png`` | pictures of the run, at its end |

Every file is replaced in one move: a full disk or a killed process leaves the one before.
"""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from deblurcli.config import RunConfig
from deblurcli.errors import UsageError, WeightsError, cannot_read, cannot_write
from deblurcli.io.files import atomic_output
from deblurcli.models.network import RestorationNetwork
from deblurcli.models.registry import load_network, read_config
from deblurcli.training.progress import TrainingStatus
from deblurcli.weights.files import save_weights
from deblurcli.weights.manifest import ModelCard, current_names


class RunFolder:
    """Saves and loads what a run needs."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoint = self.path / "last.pt"
        self.metrics = self.path / "metrics.csv"

    def prepare(self, config: RunConfig, *, resume: bool) -> None:
        """Makes the folder and writes the configuration.

        Raises:
            UsageError: it holds another run and `resume` is false.
            DeblurError: it can't be made.
        """
        if not resume and self.checkpoint.exists():
            raise UsageError(
                self.path,
                "holds a training run already",
                "add --resume to go on with it, or give another --output",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with atomic_output(self.config, overwrite=True) as part:
            part.write_text(config.to_json(), "utf-8")

    def save(
        self, state: dict[str, Any], mean: RestorationNetwork, card: ModelCard, *, best: bool
    ) -> None:
        """Saves the checkpoint: `state`, of tensors, numbers, strings, and lists and dicts of them;
        and the weights of the network to use, also as the best so far where they are.

        Raises:
            DeblurError: the disk is full or not writable; what was there before is intact.
        """
        save_weights(self.path / "last.safetensors", mean, card, overwrite=True)
        if best:
            save_weights(self.path / "best.safetensors", mean, card, overwrite=True)
        with atomic_output(self.checkpoint, overwrite=True) as part:
            try:
                torch.save(state, part)
            except RuntimeError as error:  # what torch's writer makes of a full disk
                raise OSError(28, "could not write all of it") from error

    def save_snapshot(self, step: int, mean: RestorationNetwork, card: ModelCard) -> None:
        """Saves weights that are kept. Raises DeblurError where they can't be written."""
        folder = self.path / "snapshots"
        folder.mkdir(exist_ok=True)
        save_weights(folder / f"step-{step:08d}.safetensors", mean, card, overwrite=True)

    def load_state(self) -> dict[str, Any]:
        """The checkpoint, on the CPU. It can hold nothing that would be executed.

        Raises:
            WeightsError: there is none, or it is damaged.
        """
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise WeightsError(
                self.checkpoint, "no checkpoint to go on from", "leave out --resume"
            ) from None
        except Exception as error:  # whatever the damage makes torch stumble on
            raise WeightsError(
                self.checkpoint,
                "damaged, or not a checkpoint of ours",
                "train anew with another --output; --weights last.safetensors starts from there",
            ) from error
        if not isinstance(state, dict) or "generator" not in state:
            raise WeightsError(self.checkpoint, "not a checkpoint of ours", "give another --output")
        if "ema" in state:  # until version 0.2
            old = state.pop("ema")
            state["ema_updates"] = int(old.pop("n_averaged"))
            state["ema_model"] = {
                name.removeprefix("module."): tensor for name, tensor in old.items()
            }
            state["discriminator_optimizer"] = state.pop("judge_optimizer", None)
        for part in state.keys() & {"generator", "ema_model"}:
            state[part] = current_names(state[part])
        return state

    def load_network(self) -> RestorationNetwork:
        """The network that the checkpoint trains, with its parameters.

        Raises:
            WeightsError: there is no checkpoint, or it is damaged.
        """
        state = self.load_state()
        try:
            config = read_config(state["network"])
            network = load_network(config, state["generator"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(
                self.checkpoint, "not a checkpoint of ours", "give another --output"
            ) from error
        return network

    def append_metrics(self, status: TrainingStatus) -> None:
        """One more line in ``metrics.csv``, with a column for every set that was ever measured:
        the first line may be of a run that was stopped before its first validation."""
        rows: list[dict[str, object]] = []
        try:
            with suppress(FileNotFoundError), self.metrics.open(newline="") as file:
                rows += csv.DictReader(file)
        except OSError as error:
            raise cannot_read(self.metrics, error) from error
        rows.append({**status.row()})
        with (
            atomic_output(self.metrics, overwrite=True) as part,
            part.open("w", newline="") as file,
        ):
            writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
            writer.writeheader()
            writer.writerows(rows)
