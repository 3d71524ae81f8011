"""The generator: sizes, counts, the pyramid, and its way into a file and back."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import pyramid_gaussian
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from deblurcli.errors import DeblurError, WeightsError
from deblurcli.models.compact import compact_config
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.deepdeblur import deepdeblur_config
from deblurcli.models.generator import MultiScaleGenerator, gaussian_pyramid
from deblurcli.weights.files import ModelCard, load_weights, save_weights

TINY_RESNET = GeneratorConfig(
    body="resnet", scales=3, channels=(4,), encoder_blocks=(1,), kernel_px=5
)
TINY_UNET = GeneratorConfig(
    body="unet",
    scales=3,
    channels=(4, 6, 8),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1),
    unshuffle=2,
)
TINY_GATED = replace(TINY_UNET, block="gated")


def make(config: GeneratorConfig, seed: int = 0) -> MultiScaleGenerator:
    torch.manual_seed(seed)
    return MultiScaleGenerator(config).eval().requires_grad_(False)


CONFIGS = {"resnet": TINY_RESNET, "residual unet": TINY_UNET, "gated unet": TINY_GATED}
NETWORKS = {name: make(config) for name, config in CONFIGS.items()}


@pytest.mark.parametrize(
    ("scales", "parameters"), [(1, 3_903_299), (2, 7_812_310), (3, 11_721_321)]
)
def test_deepdeblur_has_the_papers_layers(scales: int, parameters: int) -> None:
    with torch.device("meta"):
        network = MultiScaleGenerator(deepdeblur_config(scales))
    assert sum(p.numel() for p in network.parameters()) == parameters
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    between_levels = [m for m in convolutions if m.out_channels == 12]
    assert len(convolutions) - len(between_levels) == 40 * scales
    assert len(between_levels) == scales - 1
    assert {m.kernel_size for m in convolutions} == {(5, 5)}


def giga_macs(config: GeneratorConfig) -> float:
    with torch.device("meta"):
        network = MultiScaleGenerator(config)
        image = torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) / 2e9


def test_operations_on_256_by_256() -> None:
    paper = giga_macs(deepdeblur_config())
    assert paper == pytest.approx(336, abs=0.1)
    assert giga_macs(compact_config((48, 96, 128))) < paper / 40
    assert giga_macs(compact_config()) == pytest.approx(9.3, abs=0.01)  # that of the weights


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([*NETWORKS]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
)
def test_any_size_comes_back_in_its_size(name: str, height: int, width: int) -> None:
    scales = NETWORKS[name].restore_scales(torch.rand(2, 3, height, width))
    assert [tuple(level.shape) for level in scales] == [
        (2, 3, -(-height // 2**k), -(-width // 2**k)) for k in range(3)
    ]
    assert all(bool(level.isfinite().all()) for level in scales)
    # Comparable with the sharp image's pyramid, as the loss needs it.
    pyramid = gaussian_pyramid(torch.rand(2, 3, height, width), 3)
    assert [level.shape for level in pyramid] == [level.shape for level in scales]


@pytest.mark.parametrize("name", NETWORKS)
def test_output_has_the_inputs_dtype_under_autocast(name: str) -> None:
    image = torch.rand(1, 3, 40, 56)
    exact = NETWORKS[name](image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = NETWORKS[name](image)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)  # or autocast did nothing, and this test neither
    # The image itself must not be rounded to bf16, whose steps are 1/256 at 0.5 … 1.
    assert len(rough.unique()) > 0.9 * rough.numel()


@pytest.mark.parametrize("name", CONFIGS)
def test_zero_weights_leave_grey_or_the_image(name: str) -> None:
    """What the values mean: the compact body adds to its input, the paper's body does not."""
    network = make(CONFIGS[name])
    for parameter in network.parameters():
        parameter.zero_()
    image = torch.rand(1, 3, 17, 33)
    expected = torch.full_like(image, 0.5) if name == "resnet" else image
    torch.testing.assert_close(network(image), expected, atol=1e-6, rtol=0)


def test_value_range_is_a_unit_only() -> None:
    """255-range weights see 255 times the values; the caller always deals in [0, 1]."""
    ours = make(TINY_RESNET)
    theirs = MultiScaleGenerator(
        GeneratorConfig(**{**ours.config.to_json(), "value_range": 255.0})
    ).eval()
    # Without the non-linearity's help: biases scaled by 255 make both the same function.
    state = {k: v * 255 if k.endswith("bias") else v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    image = torch.rand(1, 3, 20, 28)
    torch.testing.assert_close(theirs(image), ours(image), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), seed=st.integers(0, 99))
def test_pyramid_is_that_of_scikit_image(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width, 3))
    ours = gaussian_pyramid(torch.from_numpy(image).permute(2, 0, 1)[None], 3)
    theirs = list(pyramid_gaussian(image, max_layer=2, channel_axis=-1))
    # scikit-image stops when a level is as small as the one before: at 1×1.
    for a, b in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(a[0].permute(1, 2, 0).numpy(), b, atol=1e-6)
    for level in ours[len(theirs) :]:
        assert level.shape[2:] == (1, 1)


@pytest.mark.parametrize("config", [*CONFIGS.values(), deepdeblur_config(2, 255.0)])
def test_configuration_survives_json(config: GeneratorConfig) -> None:
    assert GeneratorConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_configuration_from_elsewhere_is_refused() -> None:
    with pytest.raises(TypeError):
        GeneratorConfig.from_json({**TINY_UNET.to_json(), "attention": True})


@pytest.mark.parametrize("half", [True, False])
def test_file_rebuilds_the_network(tmp_path: Path, half: bool) -> None:
    path, network = tmp_path / "w.safetensors", make(TINY_UNET, seed=5)
    card = ModelCard(
        name="tiny",
        training_data=("photos (CC0)",),
        recipe={"steps": 3},
        scores={"gopro/test": {"psnr_db": 25.5}},
        licence="MIT",
        notes="für Tests",
    )
    save_weights(path, network, card, half=half)
    state_of_chance = torch.get_rng_state()
    loaded, loaded_card = load_weights(path)
    assert torch.equal(torch.get_rng_state(), state_of_chance)  # loading draws no numbers
    assert loaded_card == card
    assert loaded.config == TINY_UNET
    assert not loaded.training
    image = torch.rand(1, 3, 31, 45)
    tolerance = 2e-3 if half else 0.0
    torch.testing.assert_close(loaded(image), network(image), atol=tolerance, rtol=0)


def test_loading_and_restoring_needs_no_compiler(tiny_weights: Path) -> None:
    """PyTorch imports its compiler and SymPy at the slightest touch; that takes seconds."""
    program = (
        "import sys, numpy; from deblurcli import Deblurrer; "
        "Deblurrer.load(sys.argv[1], device='cpu').restore(numpy.zeros((40, 30, 3), 'uint8')); "
        "slow = {'torch._dynamo', 'torch._inductor', 'sympy', 'torch.distributed.tensor'}; "
        "print(*slow & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tiny_weights],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert run.stdout.strip() == ""


def test_existing_weights_are_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, make(TINY_UNET), ModelCard(name="first"))
    with pytest.raises(DeblurError, match="exists"):
        save_weights(path, make(TINY_UNET), ModelCard(name="second"))
    assert load_weights(path)[1].name == "first"
    save_weights(path, make(TINY_UNET), ModelCard(name="third"), overwrite=True)
    assert load_weights(path)[1].name == "third"


def rewrite(path: Path, change: dict[str, object]) -> None:
    """Changes fields of our document in a safetensors file's header, keeping its tensors."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["deblurcli"])
    document.update(change)
    header["__metadata__"]["deblurcli"] = json.dumps(document)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])


def broken_files(folder: Path) -> dict[str, Path]:
    from safetensors.torch import save_file

    save_weights(folder / "whole", make(TINY_UNET), ModelCard())
    whole = (folder / "whole").read_bytes()
    files = {name: folder / f"{name}.safetensors" for name in ("cut", "empty", "text", "header")}
    files["cut"].write_bytes(whole[:-100])
    files["empty"].write_bytes(b"")
    files["text"].write_text("<html>404 Not Found</html>")
    files["header"].write_bytes(b"\xff" * 8 + whole[8:])
    files["foreign"] = folder / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, files["foreign"])
    files["absent"] = folder / "absent.safetensors"
    poisoned = make(TINY_UNET)
    with torch.no_grad():
        next(poisoned.parameters()).view(-1)[0] = float("nan")
    files["not_finite"] = folder / "not_finite.safetensors"
    save_weights(files["not_finite"], poisoned, ModelCard())
    other = {**TINY_UNET.to_json(), "channels": [4, 6, 10]}
    for name, change in {
        "other_network": {"network": other},
        "unknown_field": {"network": {**TINY_UNET.to_json(), "heads": 8}},
        "unknown_body": {"network": {**TINY_UNET.to_json(), "body": "transformer"}},
        "fewer_levels": {"network": {**TINY_UNET.to_json(), "scales": 2}},
        "no_fields": {"network": []},
        "text_for_number": {"network": {**TINY_UNET.to_json(), "scales": "2"}},
        "no_range": {"network": {**TINY_UNET.to_json(), "value_range": 0}},
        "newer": {"format": 99},
        "no_card": {"card": None},
    }.items():
        files[name] = folder / f"{name}.safetensors"
        files[name].write_bytes(whole)
        rewrite(files[name], change)
    return files


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(WeightsError) as caught:
            load_weights(path)
        line = str(caught.value)
        assert line.startswith(str(path)), name
        assert "\n" not in line, name
        assert caught.value.exit_code == 4


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_weights(tmp_path)


class Bomb:
    """Whoever unpickles this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("torch_format", [True, False])
def test_weights_are_never_unpickled(tmp_path: Path, torch_format: bool) -> None:
    proof, path = tmp_path / "exploded", tmp_path / "w.safetensors"
    if torch_format:
        torch.save({"model": Bomb(proof)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(WeightsError):
        load_weights(path)
    assert not proof.exists()


@pytest.mark.parametrize("block", ["residual", "gated"])
def test_sums_in_place_of_concatenations_compute_the_same(block: str) -> None:
    """The finest level, written down as the design draws it: concatenate, convolve, add."""
    network = make(replace(TINY_UNET, block=block))
    level = network.levels[0]
    image, coarser = torch.rand(1, 3, 64, 96), torch.rand(1, TINY_UNET.channels[0], 16, 24)
    upscaled = F.pixel_shuffle(level.from_coarser(coarser), 2)
    features = level.head(torch.cat((F.pixel_unshuffle(image, 2), upscaled), 1))
    skips = []

    def apply(blocks: torch.nn.Sequential, features: Tensor) -> Tensor:
        for each in blocks:
            if block == "residual":
                change = F.relu(each.conv1(features))
            else:
                normalised = each.norm(features.movedim(1, -1)).movedim(-1, 1)
                values, gates = each.conv1(normalised).chunk(2, 1)
                change = values * gates
            features = features + each.conv2(change)
        return features

    for depth, encoder in enumerate(level.encoders):
        features = apply(encoder, features)
        if depth < len(level.downs):
            skips.append(features)
            features = level.downs[depth](features)
    for depth in reversed(range(len(level.ups))):
        features = skips[depth] + F.pixel_shuffle(level.ups[depth](features), 2)
        features = apply(level.decoders[depth], features)
    expected = image + F.pixel_shuffle(level.tail(features), 2)
    restored, up_features = level(image, coarser)
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(up_features, features, atol=1e-4, rtol=1e-4)
