"""Importing the authors' checkpoints: what comes out is what the original network gives.

`published_forward` is the reference: the published forward pass, written from its description
alone (float64 NumPy images, scikit-image's pyramid, PyTorch only for the convolutions), sharing
no line with deblurcli/models.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_parameters import Parameters, random_parameters, small_parameters
from torch.nn.functional import conv2d, pixel_shuffle

from deblurcli.cli import main
from deblurcli.errors import WeightsError
from deblurcli.weights.files import load_weights, save_published
from deblurcli.weights.import_deepdeblur import read_published
from deblurcli.weights.manifest import ModelCard

transform = pytest.importorskip("skimage.transform")


def published_forward(parameters: Parameters, image: np.ndarray, scales: int) -> np.ndarray:
    """The published network on ``(H, W, 3)`` values in [0, 255], H and W multiples of 2^(K-1)."""

    def convolve(values: torch.Tensor, name: str) -> torch.Tensor:
        weight = parameters[f"{name}.weight"].double()
        return conv2d(values, weight, parameters[f"{name}.bias"].double(), padding=2)

    pyramid = list(transform.pyramid_gaussian(image, max_layer=scales - 1, channel_axis=-1))
    inputs = [torch.from_numpy(p.transpose(2, 0, 1).copy())[None] - 127.5 for p in pyramid]
    blocks = len({n.split(".")[3] for n in parameters if n.startswith("body_models.0.body.")}) - 2
    output = torch.empty(0)
    for level in range(scales - 1, -1, -1):
        values = inputs[level]
        if level < scales - 1:
            coarser = convolve(output, f"conv_end_models.{level + 1}.uppath.0")
            values = torch.cat((values, pixel_shuffle(coarser, 2)), dim=1)
        values = convolve(values, f"body_models.{level}.body.0")
        for block in range(1, blocks + 1):
            inner = convolve(values, f"body_models.{level}.body.{block}.body.0").clamp_min(0)
            values = values + convolve(inner, f"body_models.{level}.body.{block}.body.2")
        output = convolve(values, f"body_models.{level}.body.{blocks + 1}")
    return (output + 127.5)[0].numpy().transpose(1, 2, 0)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.float64)


def convert(source: Path, target: Path) -> None:
    save_published(target, read_published(source), ModelCard())


def restore(path: Path, image: np.ndarray) -> np.ndarray:
    network, _ = load_weights(path)
    tensor = torch.from_numpy((image / 255).transpose(2, 0, 1).astype(np.float32))[None]
    with torch.inference_mode():
        return network(tensor)[0].numpy().transpose(1, 2, 0) * 255.0


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in units of the full range."""
    return float(np.abs(one - other).max() / 255)


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_full_size_network_gives_what_the_original_gives(tmp_path: Path, scales: int) -> None:
    parameters = random_parameters(scales)
    torch.save({"G": OrderedDict(parameters)}, tmp_path / "model-1000.pt")
    convert(tmp_path / "model-1000.pt", tmp_path / "out.safetensors")
    image = random_image(24, 40)
    expected = published_forward(parameters, image, scales)
    assert np.ptp(expected) > 50  # the comparison below is about something
    assert difference(restore(tmp_path / "out.safetensors", image), expected) < 1e-4


@pytest.mark.parametrize(("height", "width"), [(13, 18), (15, 23), (1, 1), (2, 7)])
def test_other_sizes_are_padded_as_the_original_does(
    tmp_path: Path, height: int, width: int
) -> None:
    parameters = random_parameters(3, features=8, blocks=2)
    torch.save(parameters, tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "out.safetensors")
    image = random_image(height, width)
    padding = ((0, -height % 4), (0, -width % 4), (0, 0))
    padded = np.pad(image, padding, mode="edge")  # their demo mode repeats the last row and column
    expected = published_forward(parameters, padded, 3)[:height, :width]
    assert difference(restore(tmp_path / "out.safetensors", image), expected) < 1e-4


def output_of(source: Path) -> torch.Tensor:
    return read_published(source)(torch.linspace(0, 1, 3 * 8 * 12).reshape(1, 3, 8, 12))


@pytest.fixture(scope="module")
def plain_output(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    path = tmp_path_factory.mktemp("plain") / "model.pt"
    torch.save(small_parameters(), path)
    return output_of(path)


def as_published(path: Path) -> Path:
    torch.save({"G": OrderedDict(small_parameters())}, path)
    return path


def with_discriminator(path: Path) -> Path:
    torch.save({"G": small_parameters(), "D": {"features.0.weight": torch.zeros(3)}}, path)
    return path


def with_module_prefix(path: Path) -> Path:
    torch.save({f"module.{name}": value for name, value in small_parameters().items()}, path)
    return path


def in_the_old_format(path: Path) -> Path:
    """As PyTorch 1.5 wrote it, with which the authors worked."""
    torch.save({"G": small_parameters()}, path, _use_new_zipfile_serialization=False)
    return path


def on_a_gpu_as_parameters(path: Path) -> Path:
    torch.save({n: torch.nn.Parameter(v) for n, v in small_parameters().items()}, path)
    return path


def in_the_published_zip(path: Path) -> Path:
    latest = as_published(path.with_name("latest.pt"))
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.writestr("GOPRO_L1/args.pt", pickle.dumps("never looked at"))
        archive.writestr("GOPRO_L1/models/model-900.pt", b"an older one, never looked at")
        archive.write(latest, "GOPRO_L1/models/model-1000.pt")
        archive.writestr("__MACOSX/GOPRO_L1/models/._model-1000.pt", b"")
    return path.with_suffix(".zip")


@pytest.mark.parametrize(
    "save",
    [
        as_published,
        with_discriminator,
        with_module_prefix,
        in_the_old_format,
        on_a_gpu_as_parameters,
        in_the_published_zip,
    ],
)
def test_every_form_of_checkpoint_gives_the_same_network(
    tmp_path: Path, plain_output: torch.Tensor, save: Callable[[Path], Path]
) -> None:
    assert torch.equal(output_of(save(tmp_path / "model-1000.pt")), plain_output)


class _Malicious:
    """Unpickled, it makes a file: what an attacker's checkpoint would do with a shell."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self.trace, "w"))


def malicious_files(folder: Path, trace: Path) -> dict[str, Path]:
    bomb = _Malicious(trace)
    files = {name: folder / f"{name}.pt" for name in ("alone", "beside", "inside", "old", "raw")}
    torch.save(bomb, files["alone"])
    torch.save({"G": small_parameters(), "epoch": bomb}, files["beside"])
    torch.save({"G": {**small_parameters(), "body_models.0.body.0.bias": bomb}}, files["inside"])
    torch.save({"G": bomb}, files["old"], _use_new_zipfile_serialization=False)
    files["raw"].write_bytes(pickle.dumps(bomb))
    files["zip"] = folder / "zip.zip"
    with zipfile.ZipFile(files["zip"], "w") as archive:
        archive.write(files["beside"], "X/models/model-1.pt")
    return files


@pytest.mark.parametrize("form", ["alone", "beside", "inside", "old", "raw", "zip"])
def test_malicious_pickles_are_refused_and_never_executed(tmp_path: Path, form: str) -> None:
    trace = tmp_path / "trace"
    source = malicious_files(tmp_path, trace)[form]
    with pytest.raises(WeightsError) as caught:
        convert(source, tmp_path / "out.safetensors")
    assert caught.value.exit_code == 4
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_those_pickles_are_malicious_indeed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    raw = malicious_files(tmp_path, trace)["raw"]
    pickle.loads(raw.read_bytes()).close()
    assert trace.exists()


def changed(**changes: object) -> dict[str, object]:
    parameters: dict[str, object] = dict(small_parameters())
    parameters.update({name.replace("__", "."): value for name, value in changes.items()})
    return {name: value for name, value in parameters.items() if value is not None}


@pytest.mark.parametrize(
    "document",
    [
        changed(step=3),
        changed(optimizer=torch.zeros(2)),
        changed(body_models__0__body__0__bias=None),
        changed(body_models__0__body__0__bias=torch.zeros(5)),
        changed(body_models__0__body__0__bias=torch.tensor([0, 0, 0, 0])),
        changed(body_models__0__body__0__bias=torch.full((4,), float("nan"))),
        changed(body_models__0__body__9__weight=torch.zeros(4, 4, 5, 5)),
        changed(conv_end_models__0__uppath__0__bias=torch.zeros(12)),
        {"G": small_parameters(), "optimizer": {"lr": 0.1}},
        {"G": None},
        {},
        [1, 2],
        torch.zeros(3),
        {"conv1.weight": torch.zeros(3, 3, 5, 5)},
        small_parameters(scales=4),
    ],
    ids=lambda document: "-".join(sorted(map(str, document))[-2:])[:40] or "empty",
)
def test_anything_else_is_refused(tmp_path: Path, document: object) -> None:
    torch.save(document, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="not a DeepDeblur-PyTorch checkpoint"):
        convert(tmp_path / "model.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_one_line(tmp_path: Path, data: st.DataObject) -> None:
    """Random bytes, and real checkpoints with their ends cut off, in both formats."""
    source = tmp_path / "model.pt"
    form = data.draw(st.sampled_from(["noise", "new", "old"]))
    if form == "noise":
        source.write_bytes(data.draw(st.binary(max_size=200)))
    else:
        torch.save(small_parameters(), source, _use_new_zipfile_serialization=form == "new")
        whole = source.read_bytes()
        source.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 200))])
    with pytest.raises(WeightsError):
        read_published(source)


def test_missing_files_and_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        read_published(tmp_path / "absent.pt")
    with pytest.raises(WeightsError):
        read_published(tmp_path)


def test_an_archive_with_several_models_is_not_guessed_about(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.writestr("GOPRO_L1/models/model-1000.pt", b"")
        archive.writestr("REDS_L1/models/model-200.pt", b"")
    with pytest.raises(WeightsError, match="those of several runs"):
        read_published(tmp_path / "both.zip")


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    as_published(tmp_path / "model.pt")
    target = tmp_path / "out.safetensors"
    target.write_text("precious")
    words = ["weights", "import", str(tmp_path / "model.pt"), "-o", str(target), "--name", "x"]
    assert main(words) == 2
    assert target.read_text() == "precious"
    assert main([*words, "--overwrite"]) == 0
    assert load_weights(target)[1].name == "x"
