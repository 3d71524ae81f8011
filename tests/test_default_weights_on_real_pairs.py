"""What the shipped weights must do on real pairs that nobody trains on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deblurcli import Deblurrer
from deblurcli.data import find_pairs
from deblurcli.images import read
from deblurcli.metrics import psnr


@pytest.fixture(scope="module")
def deblurrer() -> Deblurrer:
    return Deblurrer.load("default", device="cpu", offline=True)


@pytest.mark.parametrize("folder", ["gopro", "gopro_gamma", "reds/val"])
def test_every_real_pair_comes_closer(shared_data: Path, deblurrer: Deblurrer, folder: str) -> None:
    gains: dict[str, float] = {}
    for pair in find_pairs(shared_data / folder, "test"):
        blurred, sharp = read(pair.blurred).pixels, read(pair.sharp).pixels
        gains[pair.name] = psnr(deblurrer.restore(blurred), sharp) - psnr(blurred, sharp)
    assert gains
    assert min(gains.values()) > 0, gains
    assert np.mean(list(gains.values())) >= 0.5, gains


def test_sharp_photos_come_back_unharmed(shared_data: Path, deblurrer: Deblurrer) -> None:
    pairs = [p for f in ("gopro", "gopro_gamma") for p in find_pairs(shared_data / f, "test")]
    for path in [pair.sharp for pair in pairs] + [find_pairs(shared_data / "reds/val")[0].sharp]:
        sharp = read(path).pixels
        assert psnr(deblurrer.restore(sharp), sharp) >= 38, path
