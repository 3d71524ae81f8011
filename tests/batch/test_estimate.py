"""How blurred a photo is: what the default network says of real pairs and of sharp photos."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblurcli.batch.estimate import BLURRED, SLIGHT, BlurEstimate, estimate_blur
from deblurcli.cli import main
from deblurcli.data.layouts import find_pairs
from deblurcli.deblurrer import Deblurrer
from deblurcli.io import photos
from deblurcli.weights.files import load_weights, save_weights


@pytest.fixture(scope="module")
def deblurrer() -> Deblurrer:
    return Deblurrer.load(device="cpu")


def test_real_pairs_are_told_apart(shared_data: Path, deblurrer: Deblurrer) -> None:
    sets = [("more/gopro", "test"), ("more/gopro_gamma", "test"), ("more/reds", "val")]
    sets += [("gopro", "test"), ("gopro_gamma", "test"), ("reds", "val")]
    pairs = [pair for name, part in sets for pair in find_pairs(shared_data / name, part)]
    blurred, sharp = (
        np.array([estimate_blur(deblurrer, photos.read(path).pixels).change for path in paths])
        for paths in ([pair.blurred for pair in pairs], [pair.sharp for pair in pairs])
    )
    assert len(pairs) >= 15
    area_under_the_curve = (blurred[:, None] > sharp).mean()
    assert area_under_the_curve >= 0.98
    assert (blurred > sharp).all()
    assert (blurred >= BLURRED).all()
    assert (sharp < SLIGHT).all()


def test_sharp_photos_are_left_alone(shared_data: Path, deblurrer: Deblurrer) -> None:
    paths = sorted((shared_data / "photos").iterdir())[::20]
    changes = [estimate_blur(deblurrer, photos.read(path).pixels).change for path in paths]
    assert np.mean(np.array(changes) < SLIGHT) >= 0.85


def test_only_a_tenth_of_the_picture_is_restored(deblurrer: Deblurrer) -> None:
    seen: list[int] = []

    class Counting:
        strength = 1.0

        def restore(self, image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            seen.append(image[..., 0].size)
            return image

    image = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    estimate = estimate_blur(Counting(), image)  # type: ignore[arg-type]
    assert estimate == BlurEstimate(0.0, 0.0)
    assert 0.05 < sum(seen) / (720 * 1280) <= 0.1
    for shape in ((1, 1, 3), (5, 400, 3), (40, 17, 3)):
        assert estimate_blur(Counting(), np.zeros(shape, np.uint16)).is_sharp  # type: ignore[arg-type]


def edges(blur_px: int) -> np.ndarray:  # type: ignore[type-arg]
    """(320, 400, 3) uint8: a picture of edges, blurred along a horizontal line."""
    rng = np.random.default_rng(3)
    sharp = rng.integers(0, 256, (20, 25, 3)).astype(np.float32).repeat(16, 0).repeat(16, 1)
    kernel = np.ones(blur_px) / blur_px
    return np.apply_along_axis(np.convolve, 1, sharp, kernel, "same").astype(np.uint8)


def test_length_of_blur_grows_with_the_change(deblurrer: Deblurrer) -> None:
    lengths_px = [estimate_blur(deblurrer, edges(length)).blur_px for length in (1, 5, 9)]
    assert lengths_px == sorted(lengths_px)
    assert lengths_px[0] < 2 < lengths_px[2]


@pytest.mark.parametrize("settings", [{"strength": 0.2}, {"strength": 0.0}, {"ensemble": 4}])
def test_settings_do_not_matter(deblurrer: Deblurrer, settings: dict[str, float]) -> None:
    """What is sharp or blurred is told by limits that hold for whole changes of one pass."""
    other = Deblurrer(deblurrer.network, device="cpu", **settings)
    assert estimate_blur(other, edges(9)) == estimate_blur(deblurrer, edges(9))
    assert (other.strength, other.ensemble) == (
        settings.get("strength", 1.0),
        settings.get("ensemble", 1),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flat picture, which no network calls blurred, and a blurred one."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Image.new("RGB", (200, 150), (90, 120, 60)).save("in/flat.png")
    Image.fromarray(edges(9)).save("in/soft.png")
    Path("in/bad.png").write_text("no photo")
    return tmp_path


def test_the_command(folder: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--weights", str(tiny_weights)]
    assert main(["score", "in", "--json", *own]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [row["path"] for row in document["photos"]] == ["in/flat.png", "in/soft.png"]
    assert set(document["photos"][0]) == {"path", "verdict", "change", "blur_px"}
    assert document["failures"][0]["subject"] == "in/bad.png"
    assert err.startswith("deblur: in/bad.png: ")
    assert main(["score", "in", "--csv", "--sort", *own]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    changes = [float(row["change"]) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert main(["score", "in/flat.png", *own]) == 0
    assert capsys.readouterr().out.startswith("in/flat.png  ")
    for words, code in (
        (["score", "-"], 2),
        (["score", "gone.png"], 1),
        (["score", ".", "-q"], 3),
        (["score", ""], 2),
    ):
        assert main([*words, *own]) == code
    assert main(["score", "in", "--csv", "--json", *own]) == 2


def test_sharp_photos_are_skipped_and_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the shipped network: the flat picture is left alone, the blurred one restored."""
    Path("in/bad.png").unlink()
    assert main(["in", "--skip-sharp", "--dry-run", "--weights", "default"]) == 0
    shown = dict(line.split(" -> ") for line in capsys.readouterr().out.splitlines())
    assert "(sharp, change 0.0" in shown["in/flat.png"]
    assert main(["in", "--skip-sharp", "-o", "out", "--json", "--weights", "default"]) == 0
    out, err = capsys.readouterr()
    statuses = {job["source"]: job["status"] for job in json.loads(out)["jobs"]}
    assert statuses == {"in/flat.png": "skipped", "in/soft.png": "done"}
    assert "in/flat.png: left alone, as it is sharp already" in err
    assert [path.name for path in Path("out").iterdir()] == ["soft.png"]


def test_a_dry_run_reads_as_the_run_does(
    folder: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Path("in/soft.png").read_bytes()
    Path("in/half.png").write_bytes(whole[: len(whole) // 2])
    listed = ["in/half.png", "--skip-sharp", "--dry-run", "--weights"]
    assert main([*listed, str(tiny_weights)]) == 1
    assert "--damaged keep" in capsys.readouterr().err
    assert main([*listed, str(tiny_weights), "--damaged", "keep"]) == 0
    network, card = load_weights(tiny_weights)
    for parameter in network.parameters():
        parameter.data.mul_(50)
    save_weights(tmp_path / "absurd.safetensors", network, card)
    absurd = ["in/soft.png", "--weights", str(tmp_path / "absurd.safetensors"), "--json"]
    for more in (["--skip-sharp", "--dry-run"], ["-o", "out.png"]):
        capsys.readouterr()
        assert main([*absurd, *more]) == 4
        document = json.loads(capsys.readouterr().out)
        assert (document["exit_code"], set(document["error"])) == (
            4, {"subject", "reason", "remedy"},
        )  # fmt: skip
