"""Other people's networks: real architectures with random weights, in the format of the published
files, from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deblurcli import Deblurrer
from deblurcli.cli import main
from deblurcli.errors import DeblurError, WeightsError
from deblurcli.models.foreign import import_spandrel
from deblurcli.models.registry import NETWORKS
from deblurcli.weights import download, hub, manifest
from deblurcli.weights.files import load_weights, save_published
from deblurcli.weights.manifest import Entry, Manifest, write_manifest

if find_spec("spandrel") is None:
    pytest.skip("needs the extra zoo", allow_module_level=True)

Deblur = Callable[..., object]


def random_parameters(architecture: str) -> dict[str, Tensor]:
    """Of a network of that architecture: its authors' layout, fewer blocks and features.

    "small NAFNet" has half the levels: PyTorch takes half a minute to trace the other.
    """
    import_spandrel()
    from spandrel.architectures import ESRGAN, FFTformer, KBNet, NAFNet, Uformer
    from spandrel_extra_arches.architectures import MIRNet2, MPRNet, Restormer

    make = {
        "small NAFNet": lambda: NAFNet.NAFNet(
            width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1]
        ),
        "NAFNet": lambda: NAFNet.NAFNet(
            width=8, enc_blk_nums=[1, 1, 1, 2], middle_blk_num=1, dec_blk_nums=[1, 1, 1, 1]
        ),
        "KBNet": lambda: KBNet.KBNet_s(
            width=16, enc_blk_nums=[1, 1, 1, 1], middle_blk_num=1, dec_blk_nums=[1, 1, 1, 1]
        ),
        "Restormer": lambda: Restormer.Restormer(
            dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1
        ),
        "FFTformer": lambda: FFTformer.FFTformer(
            dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1
        ),
        "Uformer": lambda: Uformer.Uformer(
            img_size=128, embed_dim=16, depths=[1] * 9, win_size=8, dd_in=3
        ),
        "MPRNet": lambda: MPRNet.MPRNet(n_feat=16, scale_unetfeats=8, scale_orsnetfeats=8),
        "MIRNet2": lambda: MIRNet2.MIRNet2(n_feat=16, n_MRB=1),
        "ESRGAN": lambda: ESRGAN.ESRGAN(num_filters=8, num_blocks=1, scale=4),
    }[architecture]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        network = make()
        for name, parameter in network.named_parameters():
            if name.endswith(("beta", "gamma")):  # these start at zero: nothing would be computed
                torch.nn.init.normal_(parameter, std=0.3)
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def nafnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "NAFNet-GoPro-width8.pth"
    torch.save({"params": random_parameters("NAFNet")}, path)
    return path


def make_image(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    waves = np.sin(x / 17 + np.arange(3)) * np.cos(y / 23) / 2 + 0.5
    noisy = waves + rng.normal(0, 0.05, (height, width, 3))
    return np.clip(noisy, 0, 1).astype(np.float32)


@pytest.mark.parametrize("architecture", [n for n in NETWORKS if n not in ("unet", "resnet")])
def test_the_output_is_spandrels(architecture: str, tmp_path: Path) -> None:
    parameters = random_parameters(architecture)
    import spandrel

    published, imported = tmp_path / "theirs.pth", tmp_path / "theirs.safetensors"
    torch.save({"params": parameters}, published)
    image = make_image(72, 90)
    expected = spandrel.ModelLoader().load_from_state_dict(dict(parameters))(
        torch.from_numpy(image).permute(2, 0, 1)[None]
    )[0]
    deblurrer = Deblurrer.load(published, device="cpu", precision="fp32")
    restored = deblurrer.restore(image)
    assert deblurrer.network.config.body == architecture
    assert np.abs(restored - expected.permute(1, 2, 0).numpy()).max() < 1e-4
    assert np.abs(restored - image).max() > 1e-3
    save_published(imported, *load_weights(published))
    again = Deblurrer.load(imported, device="cpu", precision="fp32")
    assert np.array_equal(again.restore(image), restored)
    assert again.network.config.gmacs > 0  # type: ignore[attr-defined]
    if NETWORKS[architecture].half_precision:
        half = Deblurrer.load(published, device="cpu", precision="bf16").restore(image)
        assert np.abs(half - restored).mean() < 0.01
    else:
        half = Deblurrer.load(published, device="cpu", precision="bf16").restore(image)
        assert np.array_equal(half, restored)
    with pytest.raises(DeblurError, match=r"gated blocks|x86"):
        Deblurrer.load(published, device="cpu", precision="int8")
    unasked = Deblurrer.load(published, device="cpu").restore(image)
    assert np.abs(unasked - restored).mean() < 0.01
    larger = make_image(200, 330)
    whole, tiled = (
        Deblurrer.load(published, device="cpu", precision="fp32", tile=tile).restore(larger)
        for tile in (0, 256)
    )
    # Attention, pooling and MPRNet's own parts see others in a tile.
    assert np.abs(whole - tiled).mean() < min(np.abs(whole - larger).mean() / 10, 1 / 255)


def test_tiles_and_strength(nafnet: Path) -> None:
    """Global pooling sees other statistics in each tile; the picture is the same to the eye."""
    image = make_image(500, 700)
    whole = Deblurrer.load(nafnet, device="cpu", precision="fp32", tile=0).restore(image)
    tiler = Deblurrer.load(nafnet, device="cpu", precision="fp32", tile=384)
    tiled = tiler.restore(image)
    change = np.abs(whole - image).mean()
    assert np.abs(tiled - whole).mean() < min(change / 10, 1 / 255)
    tiler.strength = 0.5
    assert np.abs(tiler.restore(image) - (image + tiled) / 2).max() < 1e-5


class Mirrors(ThreadingHTTPServer):
    """Serves a file at /good/, and not quite that at /wrong/, /cut/ and /gone/."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.requests: list[str] = []

    def sources(self, *faults: str) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{self.server_address[1]}/{f}/file.pth" for f in faults)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up early are what is being tested."""


class Handler(BaseHTTPRequestHandler):
    server: Mirrors

    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        self.server.requests.append(fault)
        if fault == "gone":
            self.send_error(404)
            return
        body = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "wrong":
            body = body[:500] + bytes([body[500] ^ 1]) + body[501:]
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def mirrors(nafnet: Path) -> Iterator[Mirrors]:
    with Mirrors(nafnet.read_bytes()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "DEBLUR_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "ROUNDS", 2)
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(hub, "PACKAGE", tmp_path / "package")
    monkeypatch.setenv("DEBLUR_WEIGHTS_DIR", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def publish(nafnet: Path, sources: tuple[str, ...], folder: Path) -> None:
    content = nafnet.read_bytes()
    entry = Entry(
        "nafnet-8",
        nafnet.name,
        hashlib.sha256(content).hexdigest(),
        len(content),
        {"body": "NAFNet", "gmacs": 1.0},
        "MIT",
        {"GOPRO, published": {"psnr_db": 32.87}},
        sources,
        page="https://example.org/NAFNet",
        citation="Chen et al., ECCV 2022",
    )
    folder.mkdir(parents=True)
    write_manifest(folder, Manifest({entry.name: entry}))


@pytest.mark.parametrize("first", ["good", "wrong", "cut", "gone"])
def test_a_published_network_by_its_name(
    nafnet: Path, mirrors: Mirrors, store: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(nafnet, mirrors.sources(first, "good"), store.parent / "package" / "_weights")
    path = hub.find("nafnet-8")
    assert path == store / "nafnet-8.safetensors"
    assert mirrors.requests == (["good"] if first == "good" else [first, "good"])
    for words in ("MIT", "https://example.org/NAFNet", "Chen et al., ECCV 2022"):
        assert words in caplog.text
    caplog.clear()
    assert hub.find("nafnet-8", offline=True) == path  # converted and told once
    assert caplog.text == ""
    assert {p.name for p in store.iterdir() if p.suffix != ".lock"} == {path.name, "manifest.json"}
    (row,) = (row for row in hub.listings() if "nafnet-8" in row.entry.name)
    assert (row.state, row.path) == ("intact", path)
    assert load_weights(path)[1].licence == "MIT"
    damaged = path.read_bytes()[:-1] + b"x"
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match="damaged"):
        hub.find("nafnet-8", offline=True)
    assert hub.find("nafnet-8").read_bytes() != damaged


@pytest.mark.parametrize("fault", ["wrong", "cut", "gone"])
def test_no_intact_mirror_leaves_nothing(
    nafnet: Path, mirrors: Mirrors, store: Path, fault: str
) -> None:
    publish(nafnet, mirrors.sources(fault, fault), store.parent / "package" / "_weights")
    with pytest.raises(WeightsError, match="could not be downloaded"):
        hub.find("nafnet-8")
    assert [p.name for p in store.iterdir() if p.suffix != ".lock"] == []


def test_without_the_extra_one_line_says_what_to_install(
    nafnet: Path, mirrors: Mirrors, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(nafnet, mirrors.sources("good"), store.parent / "package" / "_weights")
    imported = store / "mine.safetensors"
    save_published(imported, *load_weights(nafnet))
    monkeypatch.setattr(manifest, "find_spec", lambda name: None)
    for weights in ("nafnet-8", nafnet, imported):
        with pytest.raises(WeightsError, match=r"pip install 'deblurcli\[zoo\]'"):
            Deblurrer.load(weights)
    assert mirrors.requests == []


def test_other_networks_are_refused_by_name(nafnet: Path, tmp_path: Path) -> None:
    files = {
        "ESRGAN, a network for upscaling": random_parameters("ESRGAN"),
        "of no architecture that spandrel .* knows .*NAFNet": {"a": torch.zeros(3)},
        "fit no network|of no architecture": dict(list(torch.load(nafnet)["params"].items())[:-30]),
        "nothing in it was run": {"params": Path("a")},
    }
    for reason, document in files.items():
        torch.save(document, tmp_path / "file.pth")
        with pytest.raises(WeightsError, match=reason) as caught:
            Deblurrer.load(tmp_path / "file.pth")
        assert "\n" not in str(caught.value)
    (tmp_path / "file.pth").write_bytes(nafnet.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="damaged"):
        Deblurrer.load(tmp_path / "file.pth")


def test_add_remembers_a_network(
    nafnet: Path, mirrors: Mirrors, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(nafnet.read_bytes()).hexdigest()
    (url,) = mirrors.sources("good")
    assert main(["weights", "add", url, "--name", "theirs", "--sha256", digest.upper()]) == 0
    assert capsys.readouterr().out.strip() == str(store / "theirs.safetensors")
    assert main(["weights", "add", str(nafnet), "--name", "local", "--licence", "MIT"]) == 0
    capsys.readouterr()
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["local"]["licence"] == "MIT"
    for name in ("theirs", "local"):
        network = rows[name]["network"]
        assert (network["body"], rows[name]["state"]) == ("NAFNet", "intact")
        assert network["gmacs"] > 0
    image = make_image(40, 50)
    one, other = (Deblurrer.load(name, precision="fp32") for name in ("theirs", nafnet))
    assert np.array_equal(one.restore(image), other.restore(image))
    wrong = "0" * 64
    assert main(["weights", "add", str(nafnet), "--name", "x", "--sha256", wrong]) == 4
    assert main(["weights", "add", str(nafnet), "--name", "theirs"]) == 2  # there is one
    assert main(["weights", "add", "model.onnx", "--name", "x"]) == 2
    assert not list(store.glob("*x*.safetensors"))


def test_from_the_command_line(
    nafnet: Path, tmp_path: Path, deblur_here: Deblur, make_photo: Callable[..., Path]
) -> None:
    photo = make_photo(tmp_path / "photo.png", size=(64, 48))
    run = deblur_here(photo, "-o", tmp_path / "sharp.png", "--weights", nafnet)
    assert run.returncode == 0, run.stderr  # type: ignore[attr-defined]
    assert (tmp_path / "sharp.png").exists()


def test_they_are_exported_for_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nafnet = tmp_path / "small.pth"
    torch.save({"params": random_parameters("small NAFNet")}, nafnet)
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra 'onnx' is not installed")
    model = tmp_path / "theirs.onnx"
    assert main(["weights", "export", str(nafnet), str(model)]) == 0
    image = make_image(64, 96)
    ours = Deblurrer.load(model)
    theirs = Deblurrer.load(nafnet, device="cpu", precision="fp32")
    assert (ours.overlap_px, ours.backend.alignment_px) == (128, 4)
    assert np.abs(ours.restore(image) - theirs.restore(image)).max() < 1e-4
    with pytest.raises(WeightsError, match="deblur weights export"):
        Deblurrer.load(nafnet, backend="onnx")
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: 1 / 0)
    assert main(["weights", "export", str(nafnet), str(tmp_path / "x.onnx")]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"small.pth", "theirs.onnx"}


def test_a_torchvision_that_cannot_be_imported_is_no_obstacle(nafnet: Path, tmp_path: Path) -> None:
    """As one built for CUDA beside a PyTorch for CPUs."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from deblurcli.weights.files import load_weights
assert load_weights({str(nafnet)!r})[0].config.body == "NAFNet"
assert "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
