"""ONNX Runtime restores as PyTorch does, in processes that never import PyTorch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from video_clips import decode, ffmpeg, needs_ffmpeg

from deblurcli import Deblurrer
from deblurcli.cli import main
from deblurcli.errors import DeviceError, UsageError, WeightsError
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.weights import hub
from deblurcli.weights.files import save_weights
from deblurcli.weights.manifest import ModelCard, graph_name, read_header

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it fails
from deblurcli.cli import main
code = main(sys.argv[1:])
assert not [name for name in sys.modules if name.startswith("torch.")]
sys.exit(code)
"""


def run_without_torch(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**hub.os.environ, **environment},
    )


def make_image(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    waves = np.sin(x / 9 + np.arange(3)) * np.cos(y / 11) / 2 + 0.5
    noisy = np.clip(waves + rng.normal(0, 0.05, (height, width, 3)), 0, 1)
    return (255 * noisy).round().astype(np.uint8)


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network whose graph does not come with the package."""
    torch.manual_seed(1)
    network = MultiScaleGenerator(GeneratorConfig("unet", 1, (8, 8), (1, 1), (1,), unshuffle=2))
    torch.nn.init.normal_(network.levels[0].tail.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    path = tmp_path_factory.mktemp("own") / "own.safetensors"
    save_weights(path, network, ModelCard(name="own"))
    return path


@pytest.mark.parametrize(
    ("tile", "ensemble", "strength"), [(0, 1, 1.0), (128, 1, 1.0), (0, 2, 0.5)]
)
def test_the_default_network_restores_as_with_pytorch(
    tile: int, ensemble: int, strength: float
) -> None:
    settings = {"tile": tile, "ensemble": ensemble, "strength": strength, "offline": True}
    sharp = skimage.data.astronaut()[100:250, 150:360].astype(float)
    image = np.mean([np.roll(sharp, n, axis=1) for n in range(9)], axis=0).round().astype(np.uint8)
    ours = Deblurrer.load(backend="onnx", **settings)  # type: ignore[arg-type]
    theirs = Deblurrer.load(device="cpu", precision="fp32", **settings)  # type: ignore[arg-type]
    assert (ours.overlap_px, ours.card) == (theirs.overlap_px, theirs.card)
    restored, expected = ours.restore(image), theirs.restore(image)
    assert np.abs(restored.astype(int) - expected).max() <= 1
    assert np.abs(restored.astype(int) - expected).mean() < 0.01
    assert np.abs(expected.astype(int) - image).mean() > 0.5  # there is something to get wrong
    (batched,) = ours.restore_batch([image])
    assert np.array_equal(batched, restored)


@pytest.mark.parametrize("backend", ["onnx", "auto"])
def test_a_photo_is_restored_without_pytorch(tmp_path: Path, backend: str) -> None:
    image = make_image(60, 80)
    Image.fromarray(image).save(tmp_path / "photo.png")
    target = tmp_path / "sharp.png"
    run = run_without_torch(
        *(tmp_path / "photo.png", "-o", target, "--backend", backend, "--offline", "-v")
    )
    assert run.returncode == 0, run.stderr
    assert "ONNX Runtime" in run.stderr
    expected = Deblurrer.load(device="cpu", precision="fp32").restore(image)
    assert np.abs(np.asarray(Image.open(target)).astype(int) - expected).max() <= 1


@needs_ffmpeg
def test_a_clip_that_stands_still_is_steadied_without_pytorch(tmp_path: Path) -> None:
    Image.fromarray(make_image(64, 96)).save(tmp_path / "still.png")
    clip, ours, theirs = (tmp_path / name for name in ("clip.mkv", "ours", "theirs"))
    noisy = ("-vf", "noise=alls=6:allf=t", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    ffmpeg("-loop", 1, "-r", 5, "-i", tmp_path / "still.png", "-frames:v", 5, *noisy, clip)
    # Pictures: in a video's YUV one level of difference may become three.
    settings = ("--frames", "--offline")
    run = run_without_torch(clip, "-o", ours, "--backend", "onnx", *settings)
    assert run.returncode == 0, run.stderr
    assert main([str(clip), "-o", str(theirs), "--precision", "fp32", *settings]) == 0
    blurred = decode(clip, (96, 64), count=5).astype(int)
    restored, expected = (
        np.stack([np.asarray(Image.open(path), int) for path in sorted(folder.iterdir())])
        for folder in (ours, theirs)
    )
    assert np.abs(restored - expected).max() <= 2
    assert np.abs(restored - blurred).mean() > 0.5
    # What is added stands still though the noise does not.
    changes = np.diff(restored - blurred, axis=0)[2:]
    assert np.abs(changes).mean() < 0.5 * np.abs(np.diff(blurred, axis=0)).mean()


def test_photos_are_compared_without_pytorch(tmp_path: Path) -> None:
    Image.fromarray(make_image(60, 80)).save(tmp_path / "photo.png")
    page = tmp_path / "page.html"
    run = run_without_torch("compare", tmp_path / "photo.png", tmp_path / "photo.png", "-o", page)
    assert run.returncode == 0, run.stderr
    assert "1 slider" in run.stderr


def test_a_graph_is_made_once_and_kept(
    own_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    monkeypatch.setenv("DEBLUR_WEIGHTS_DIR", str(tmp_path / "store"))
    image = make_image(45, 67)
    restored = Deblurrer.load(own_weights, backend="onnx").restore(image)
    expected = Deblurrer.load(own_weights, device="cpu", precision="fp32").restore(image)
    assert np.abs(restored.astype(int) - expected).max() <= 1
    (graph,) = (tmp_path / "store").iterdir()
    assert graph.stat().st_size < 100_000  # the parameters stay where they were
    made = graph.stat().st_mtime_ns
    Image.fromarray(image).save(tmp_path / "photo.png")
    run = run_without_torch(
        *(tmp_path / "photo.png", "-o", tmp_path / "sharp.png", "--weights", own_weights)
    )
    assert run.returncode == 0, run.stderr
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sharp.png")), restored)
    assert graph.stat().st_mtime_ns == made


def test_what_export_writes_restores_elsewhere(own_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    model = tmp_path / "own.onnx"
    assert main(["weights", "export", str(own_weights), str(model)]) == 0
    image = make_image(33, 50)
    ours = Deblurrer.load(model)
    assert ours.card.name == "own"
    expected = Deblurrer.load(own_weights, device="cpu", precision="fp32").restore(image)
    assert np.abs(ours.restore(image).astype(int) - expected).max() <= 1
    with pytest.raises(UsageError, match="give --backend onnx"):
        Deblurrer.load(model, backend="torch")
    model.write_bytes(model.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="damaged"):
        Deblurrer.load(model)


def test_without_pytorch_and_a_graph_one_line_says_what_to_do(
    own_weights: Path, make_photo: Callable[..., Path], tmp_path: Path
) -> None:
    photo = make_photo(tmp_path / "photo.png")
    run = run_without_torch(photo, "--weights", own_weights, DEBLUR_WEIGHTS_DIR=str(tmp_path / "w"))
    assert run.returncode == 4
    assert "deblur weights export FILE FILE.onnx" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    ["train --data pairs -o run", "eval --data pairs", "photo.jpg --backend torch", "info"],
)
def test_what_needs_pytorch_says_so(
    words: str, tmp_path: Path, make_photo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photo(Path("photo.jpg"))
    run = run_without_torch(*words.split())
    assert run.returncode == (0 if words == "info" else 2)
    assert run.stderr.count("\n") == (0 if words == "info" else 1)
    if words != "info":
        assert "torch" in run.stderr


@pytest.mark.parametrize(
    ("wishes", "error", "text"),
    [
        ({"device": "cuda"}, DeviceError, "cuda: ONNX Runtime"),
        ({"precision": "bf16"}, DeviceError, "bf16: ONNX Runtime"),
        ({"backend": "tensorrt"}, UsageError, "give auto, torch or onnx"),
        ({"weights": "nowhere.onnx"}, WeightsError, "no such weights file"),
    ],
)
def test_what_cannot_be(wishes: dict[str, str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Deblurrer.load(**{"backend": "onnx", **wishes})  # type: ignore[arg-type]


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'deblurcli\[onnx\]'"):
        Deblurrer.load(backend="onnx")


def test_too_little_memory_makes_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    deblurrer = Deblurrer.load(backend="onnx")
    image = make_image(300, 300)
    expected = deblurrer.restore(image)
    run = onnxruntime.InferenceSession.run
    sizes = []

    def run_small(session: object, names: list[str], feeds: dict[str, np.ndarray]) -> object:
        sizes.append(feeds["blurred"].shape[2:])
        if feeds["blurred"].size > 3 * 200 * 200:
            raise RuntimeError("std::bad_alloc")
        return run(session, names, feeds)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run_small)
    assert np.abs(deblurrer.restore(image).astype(int) - expected).mean() < 1
    assert sizes[0] == (300, 300)
    assert max(sizes[1:]) < (200, 200)


def test_the_graph_of_the_default_network_comes_with_the_package() -> None:
    """New default weights of another configuration need theirs: CONTRIBUTING.md, "Release"."""
    repository = Path(__file__).parents[2]
    if not (repository / "weights" / "compact.safetensors").is_file():
        pytest.skip("the default weights are not in this checkout")
    name = graph_name(read_header(repository / "weights" / "compact.safetensors")[0])
    assert (repository / "weights" / name).is_file()
    packaging = (repository / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"weights/{name}" = "deblurcli/_weights/{name}"' in packaging
