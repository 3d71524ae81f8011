"""Bringing in other people's networks: a published checkpoint becomes a weights file, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deblurcli.models.foreign import ForeignConfig
from deblurcli.models.network import count_gmacs
from deblurcli.weights.files import ModelCard, load_weights, save_weights


def import_foreign(
    source: Path, target: Path, card: ModelCard | None = None, *, overwrite: bool = False
) -> None:
    """Turns a checkpoint that spandrel knows into a weights file that gives the same output.

    Args:
        source: a ``.pth`` or ``.ckpt`` file, or a weights file of deblurcli.
        target: the ``.safetensors`` file to write, in float32 as published.
        card: what it shall say of itself; else what `source` says.

    Raises:
        WeightsError: the extra ``zoo`` is missing, or `source` is damaged or of an unsuitable
            network.
        DeblurError: `target` exists and `overwrite` is false, or can't be written.
    """
    network, own_card = load_weights(source)
    if isinstance(network.config, ForeignConfig):
        network.config = replace(network.config, gmacs=round(count_gmacs(network), 2))
    save_weights(target, network, card or own_card, half=False, overwrite=overwrite)
