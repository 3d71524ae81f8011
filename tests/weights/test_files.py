"""Weights files and checkpoints that older versions wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deblurcli.models.compact import compact_config
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.training import RunFolder
from deblurcli.weights.files import ModelCard, load_weights, save_weights


def with_old_names(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As version 1 called the convolutions of a block."""
    return {
        name.replace(".conv1.", ".first.").replace(".conv2.", ".second."): tensor
        for name, tensor in parameters.items()
    }


@pytest.mark.parametrize("block", ["residual", "gated"])
def test_weights_of_version_1_still_load(tmp_path: Path, block: str) -> None:
    network = MultiScaleGenerator(compact_config((8, 8), scales=2, block=block))
    save_weights(tmp_path / "new.safetensors", network, ModelCard(name="n"), half=False)
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        document = json.loads(file.metadata()["deblurcli"]) | {"format": 1}
    old = with_old_names(load_file(tmp_path / "new.safetensors"))
    assert any(".first." in name for name in old)
    save_file(old, tmp_path / "old.safetensors", metadata={"deblurcli": json.dumps(document)})
    loaded, card = load_weights(tmp_path / "old.safetensors")
    assert card.name == "n"
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_runs_of_version_1_still_go_on(tmp_path: Path) -> None:
    network = MultiScaleGenerator(compact_config((8, 8), scales=2))
    parameters = network.state_dict()
    state = {
        "network": network.config.to_json(),
        "generator": with_old_names(parameters),
        "ema": with_old_names({f"module.{name}": t for name, t in parameters.items()}),
    }
    folder = RunFolder(tmp_path)
    torch.save(state, folder.checkpoint)
    loaded = folder.load_network().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in parameters.items())
    assert {f"module.{name}" for name in parameters} == set(folder.load_state()["ema"])
