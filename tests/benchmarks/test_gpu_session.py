"""What is packed for a lent machine is found again there as what it was, and trains."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gpu_session
import numpy as np
import pytest
from PIL import Image

from deblurcli.data.layouts import find_pairs


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data, output = tmp_path / "data", tmp_path / "packed"
    for name in ("taken.png", "held.png"):
        write(data / "photos" / name, 1)
    for half in ("blur", "blur_gamma", "sharp"):
        for part in ("train", "test"):
            write(data / "GOPRO" / part / "GOPR0001" / half / "000001.png", 2)
    for half in ("blur", "blur_comp", "sharp"):
        for part in ("train", "val"):
            write(data / "REDS" / f"{part}_{half}" / "000" / "00000000.png", 3)
    (tmp_path / "names.txt").write_text("held.png\n")
    words = f"pack --photos {data}/photos --leave-out {tmp_path}/names.txt -o {output}"
    sets = [word for name in ("GOPRO", "REDS") for word in ("--pairs", data / name)]
    sets += [word for name in ("GOPRO", "REDS") for word in ("--val", data / name)]
    monkeypatch.setattr("sys.argv", ["gpu_session.py", *words.split(), *map(str, sets)])
    with monkeypatch.context() as patch:  # what it would download is installed here
        patch.setattr(subprocess, "run", lambda *_, **__: None)
        assert gpu_session.main() == 0
    return output


def test_pairs_keep_their_kind(packed: Path) -> None:
    kinds = ["GOPRO gamma", "GOPRO linear", "REDS", "REDS compressed"]
    for folder in ("pairs", "validation"):
        found = [
            pair.kind for part in sorted((packed / folder).iterdir()) for pair in find_pairs(part)
        ]
        assert sorted(found) == kinds
    assert [path.name for path in (packed / "photos").rglob("*.webp")] == ["taken.webp"]


def test_trains_what_was_packed(
    packed: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = f"train {packed} --run {tmp_path}/run --out {out} -- --steps 1 --workers 0 --device cpu"
    settings = [
        "batch=1",
        "patch_px=64",
        "warmup_steps=0",
        "motion.path_px=4.0",
        "motion.objects=0",
    ]
    words += f" --weights {tiny_weights} --track none"
    words += "".join(f" --set {setting}" for setting in settings)
    monkeypatch.setattr("sys.argv", ["gpu_session.py", *words.split()])
    assert gpu_session.main() == 0, (out / "train.log").read_text()
    header = (out / "metrics.csv").read_text().splitlines()[0]
    for kind in ("GOPRO linear", "GOPRO gamma", "REDS", "REDS compressed"):
        assert f"psnr_db:{kind}" in header
    assert (out / "last.safetensors").exists()


def test_a_failed_training_is_told(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"train {packed} --run {tmp_path}/run --out {tmp_path}/out -- --set batch=0"
    monkeypatch.setattr("sys.argv", ["gpu_session.py", *words.split()])
    assert gpu_session.main() == 2
