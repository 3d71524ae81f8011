"""Weights files and checkpoints that older versions wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deblurcli.errors import WeightsError
from deblurcli.models.compact import compact_config
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.weights.files import ModelCard, load_weights, save_weights
from deblurcli.weights.manifest import describe, read_manifest


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


# Headers of foreign or damaged files

DEEP = "[" * 200_000
SOUND = {
    "body": "unet", "scales": 1, "channels": [4], "encoder_blocks": [1], "decoder_blocks": [],
}  # fmt: skip


def weights_file(path: Path, document: str) -> Path:
    """A safetensors file of 1.9 KB or less, or with a long header."""
    header = json.dumps({"__metadata__": {"deblurcli": document}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


@pytest.mark.parametrize(
    "network",
    [
        [1], {}, None, "unet", SOUND | {"encoder_blocks": [100_000_000]}, SOUND | {"scales": 1e8},
        SOUND | {"channels": [10**9]}, SOUND | {"channels": ["4"]},
        SOUND | {"kernel_px": 10**9 + 1},
        SOUND | {"unshuffle": 10**9}, SOUND | {"value_range": "x"}, SOUND | {"channels": [20_000]},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_configurations_are_one_line(tmp_path: Path, network: object) -> None:
    document = json.dumps({"format": 2, "network": network, "card": {}})
    path = weights_file(tmp_path / "a.safetensors", document)
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    document=st.one_of(
        st.just(DEEP),
        st.text(max_size=50),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=9) | st.floats(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["format", "network", "card", "body"]), inner)
            ),
        ).map(json.dumps),
    )
)
def test_any_header_is_refused_in_one_line(document: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = weights_file(Path(folder, "a.safetensors"), document)
        for read in (load_weights, describe):
            with pytest.raises(WeightsError) as caught:
                read(path)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"bytes": "123"}, {"bytes": -1}, {"licence": "\x1b[2J"}, {"licence": 3}, {"sha256": 5},
     {"name": "a\nb"}, {"sources": 3}, {"unknown": 1}],
    ids=str,
)  # fmt: skip
def test_absurd_manifests_are_one_line(tmp_path: Path, change: dict[str, object]) -> None:
    entry = {"name": "a", "file": "a.safetensors", "sha256": "0" * 64, "bytes": 1} | change
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "weights": [entry]}))
    with pytest.raises(WeightsError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value).isprintable()
    (tmp_path / "manifest.json").write_text(DEEP)
    with pytest.raises(WeightsError):
        read_manifest(tmp_path)


def test_no_terminal_obeys_what_a_weights_file_says(
    deblur_here: Callable[..., CompletedProcess[str]],
    make_photo: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evil = "\x1b[2Jnice\x07\n"
    monkeypatch.setenv("DEBLUR_WEIGHTS_DIR", str(tmp_path))
    weights = tmp_path / f"{evil}.safetensors"
    network = MultiScaleGenerator(compact_config((8, 8), scales=2))
    card = ModelCard(evil, (evil,), {evil: 1}, {evil: {"psnr_db": 30.0, evil: 1.0}}, "MIT", evil)
    save_weights(weights, network, card)
    for side in ("blur", "sharp"):
        make_photo(tmp_path / "test" / "scene" / side / "1.png")
    for words in (
        ["weights", "list"],
        ["weights", "verify"],
        ["weights", "verify", weights],
        ["info", "-vv"],
        ["eval", "--data", tmp_path, "--weights", weights, "-vv"],
        [tmp_path / "test/scene/blur/1.png", "--weights", weights, "-vv", "-o", tmp_path / "a.png"],
    ):
        result = deblur_here(*words)
        assert result.returncode == 0, result.stderr
        said = result.stdout + result.stderr
        assert "nice" in said or words[0] == "info"
        assert all(c.isprintable() for c in said.replace("\n", "")), said
