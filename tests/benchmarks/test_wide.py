"""The benchmark of the wide sets: its figures are those of the pictures it restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wide
from PIL import Image
from skimage import data

from deblurcli import Deblurrer
from deblurcli.evaluation.metrics import psnr
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.weights.files import ModelCard, load_weights, save_weights


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with two pairs of one set and two sharp photos of the list."""
    photo = data.astronaut()
    harm = wide.HARM_LIST.read_text("utf-8").split()[:2]
    for index in range(2):
        sharp = photo[100 * index :][:96, :128]
        folder = tmp_path / "more" / "gopro" / "test" / "GOPR0384_11_00"
        files = {
            folder / "blur" / f"{index}.png": np.roll(sharp, 1, axis=1) // 2 + sharp // 2,
            folder / "sharp" / f"{index}.png": sharp,
            tmp_path / wide.HARM_FOLDER / harm[index]: sharp,
        }
        for path, pixels in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, lossless=True)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["wide.py", *map(str, words)])
    wide.main()


def test_figures_are_those_of_the_restored_pictures(
    root: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    network, _ = load_weights(tiny_weights)
    other = tmp_path / "other.safetensors"
    with_noise = MultiScaleGenerator(network.config)
    save_weights(other, with_noise, ModelCard(name="other", licence="MIT"))
    third, fourth = tmp_path / "a" / "best.safetensors", tmp_path / "b" / "best.safetensors"
    for same in (third, fourth):  # files of one name, whose cards have one name, too
        same.parent.mkdir()
        save_weights(same, network, ModelCard(name="tiny", licence="MIT"))
    words = ("--data", root, "--reference", tiny_weights, "--weights", other, "--json")
    words += ("--weights", third, "--weights", fourth)
    run(monkeypatch, *words, "--save", tmp_path / "worst", "--worst", "1")
    captured = capsys.readouterr()
    assert "reds/val: no pictures" in captured.err
    document = json.loads(captured.out)
    rows = {(row["set_name"], row["weights"]): row for row in document["sets"]}
    names = ("tiny", "other", str(third), str(fourth))
    assert set(rows) == {(s, w) for s in ("more/gopro", "do no harm") for w in names}

    deblurrer = Deblurrer.load(other, "cpu")
    gains, harms, changes = [], [], []
    for path in sorted(root.rglob("blur/*.png")):
        blurred = np.asarray(Image.open(path))
        sharp = np.asarray(Image.open(str(path).replace("blur", "sharp")))
        gains.append(psnr(deblurrer.restore(blurred), sharp) - psnr(blurred, sharp))
        restored = deblurrer.restore(sharp)
        harms.append(psnr(restored, sharp))
        difference = np.abs(restored.astype(float) - sharp).mean(2)
        windows = np.lib.stride_tricks.sliding_window_view(difference, (16, 16))
        changes.append(windows.mean((2, 3)).max())
    row = rows["more/gopro", "other"]
    assert row["restored_db"] - row["blurred_db"] == pytest.approx(np.mean(gains))
    assert row["worst_db"] == pytest.approx(min(gains))
    harm = rows["do no harm", "other"]
    assert harm["restored_db"] == pytest.approx(np.mean(harms))
    assert harm["median_db"] == pytest.approx(np.median(harms))
    assert harm["worst_db"] == pytest.approx(min(harms))
    assert harm["change"] == pytest.approx(max(changes), rel=1e-4)
    assert rows["do no harm", "tiny"]["ratio"] == 1
    saved = sorted(p.name.rpartition("-")[2] for p in (tmp_path / "worst").rglob("*.png"))
    assert saved == ["after.png"] * 8 + ["before.png"] * 8 + ["sharp.png"] * 4


def test_an_ensemble_stands_beside_one_pass(
    root: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ("--sets", "more/gopro", "--precision", "fp32", "--ensemble", "2", "--json")
    run(monkeypatch, "--data", root, "--reference", tiny_weights, *words)
    single, double = json.loads(capsys.readouterr().out)["sets"]
    assert (single["weights"], double["weights"]) == ("tiny", "tiny, 2 copies")
    for row, copies in ((single, 1), (double, 2)):
        deblurrer = Deblurrer.load(tiny_weights, "cpu", "fp32", ensemble=copies)
        restored = [
            psnr(deblurrer.restore(np.asarray(Image.open(path))),
                 np.asarray(Image.open(str(path).replace("blur", "sharp"))))
            for path in root.rglob("blur/*.png")
        ]  # fmt: skip
        assert row["restored_db"] == pytest.approx(np.mean(restored))
    assert single["restored_db"] != double["restored_db"]


def test_the_tables_name_every_set_and_the_worst_picture(
    root: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run(monkeypatch, "--data", root, "--reference", tiny_weights)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| more/gopro | tiny | 2 | ")
    assert "(test/GOPR0384_11_00/" in lines[2]
    assert "mean dB" in lines[4]
    assert lines[6].startswith("| tiny | 2 | ")


def test_the_list_names_at_least_twenty_photos_once() -> None:
    names = wide.HARM_LIST.read_text("utf-8").split()
    assert len(names) == len(set(names)) >= 20


def test_the_listed_photos_are_there(shared_data: Path) -> None:
    names = wide.HARM_LIST.read_text("utf-8").split()
    assert [case.sharp.name for case in wide.find_cases(shared_data, wide.HARM_SET)] == names
