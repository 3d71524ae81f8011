"""Exported models give what PyTorch gives, at sizes that the exporter never saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deblurcli.errors import DeblurError, UsageError
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.weights.files import ModelCard

pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

# Together they have all parts: pyramid, both paddings, both bodies. Exporting takes seconds each.
CONFIGS = {
    "unet": GeneratorConfig("unet", 1, (8, 8), (1, 1), (1,), unshuffle=2),
    "resnet": GeneratorConfig("resnet", 2, (8,), (1,), kernel_px=5, value_range=255.0),
}


def lively_network(config: GeneratorConfig) -> MultiScaleGenerator:
    """A network whose output is far from its input, so that mistakes show."""
    torch.manual_seed(3)
    network = MultiScaleGenerator(config).eval().requires_grad_(False)
    for level in network.levels:
        torch.nn.init.normal_(level.tail.weight, std=0.1)
    return network


@pytest.fixture(scope="module", params=["unet", "resnet"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MultiScaleGenerator, Path]:
    from deblurcli.weights.export_onnx import export_onnx

    network = lively_network(CONFIGS[request.param])
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network, ModelCard(name="lively", licence="MIT"), path)
    return network, path


def test_same_output_at_any_size(exported: tuple[MultiScaleGenerator, Path]) -> None:
    network, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in [(1, 3, 128, 96), (1, 3, 31, 33), (3, 3, 17, 100), (1, 3, 1, 1), (1, 3, 3, 200)]:
        blurred = torch.rand(shape)
        expected = network(blurred).clamp(0, 1).numpy()
        (got,) = session.run(None, {"blurred": blurred.numpy()})
        assert got.shape == shape
        assert np.abs(got - expected).max() < 1e-3
        if shape[-1] > 90:
            assert np.abs(expected - blurred.numpy()).mean() > 0.02


def test_the_file_stands_alone_and_says_what_it_is(
    exported: tuple[MultiScaleGenerator, Path],
) -> None:
    network, path = exported
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    document = json.loads(session.get_modelmeta().custom_metadata_map["deblurcli"])
    assert document["card"]["licence"] == "MIT"
    assert document["network"]["body"] == network.config.body


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    from deblurcli.weights.export_onnx import export_onnx

    target = tmp_path / "model.onnx"
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        export_onnx(lively_network(CONFIGS["unet"]), ModelCard(), target)
    assert target.read_text() == "precious"


def test_without_the_extra_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deblurcli.weights import export_onnx

    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    with pytest.raises(DeblurError, match=r"deblurcli\[onnx\]"):
        export_onnx.export_onnx(lively_network(CONFIGS["unet"]), ModelCard(), tmp_path / "m.onnx")


def test_the_command_exports_a_file_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deblurcli.cli import main
    from deblurcli.weights.files import save_weights

    network = lively_network(GeneratorConfig("resnet", 1, (4,), (1,), kernel_px=3))
    save_weights(tmp_path / "own.safetensors", network, ModelCard(name="own"), half=False)
    target = tmp_path / "own.onnx"
    words = ["weights", "export", str(tmp_path / "own.safetensors"), str(target)]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == str(target)
    assert document["largest_difference"] < 1e-3
    assert target.stat().st_size > 0
    assert main(words) == 2  # it exists
    assert main([*words[:-1], str(tmp_path / "own.pt")]) == 2
    assert "end it in .onnx" in capsys.readouterr().err


def test_a_model_that_differs_is_not_kept_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deblurcli.weights import export_onnx

    target = tmp_path / "model.onnx"
    target.write_bytes(b"the one before")
    monkeypatch.setattr(export_onnx, "MAX_DIFFERENCE", -1.0)
    one_level = lively_network(GeneratorConfig("resnet", 1, (8,), (1,), kernel_px=5))
    with pytest.raises(DeblurError, match="differs from PyTorch's"):
        export_onnx.export_onnx(one_level, ModelCard(), target, overwrite=True)
    assert target.read_bytes() == b"the one before"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
