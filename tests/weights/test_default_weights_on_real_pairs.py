"""What the shipped weights must do on real pairs that nobody trains on, and on sharp photos.

Of each picture the middle part is taken, for the time; `benchmarks/wide.py` measures whole ones.
Each mean of pairs may lie 0.2 dB below what the weights of 1628 minutes come to.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wide import HARM_FOLDER, HARM_LIST

from deblurcli import Deblurrer
from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture
from deblurcli.evaluation.metrics import psnr
from deblurcli.io.image import Image

PAIRS_DB = {
    "more/gopro": 27.62,
    "more/gopro_gamma": 30.26,
    "more/reds": 27.99,
    "gopro": 28.43,
    "gopro_gamma": 30.44,
    "reds/val": 28.96,
}
HARM_DB, WORST_HARM_DB = 58.6, 27.7


@pytest.fixture(scope="module")
def deblurrer() -> Deblurrer:
    return Deblurrer.load("default", device="cpu", offline=True)


def middle(path: Path, width: int, height: int) -> Image:
    picture = read_picture(path)
    top, left = (
        (have - want) // 2 for have, want in zip(picture.shape, (height, width), strict=False)
    )
    return picture[max(top, 0) :, max(left, 0) :][:height, :width]


@pytest.mark.parametrize("folder", PAIRS_DB)
def test_every_real_pair_comes_closer(shared_data: Path, deblurrer: Deblurrer, folder: str) -> None:
    gains, restored_db = {}, []
    for pair in find_pairs(shared_data / folder, "test"):
        blurred, sharp = (middle(path, 640, 360) for path in (pair.blurred, pair.sharp))
        restored_db.append(psnr(deblurrer.restore(blurred), sharp))
        gains[pair.name] = restored_db[-1] - psnr(blurred, sharp)
    assert gains
    assert min(gains.values()) > 0.5, gains
    assert np.mean(restored_db) >= PAIRS_DB[folder] - 0.2, gains


def test_sharp_frames_come_back_unharmed(shared_data: Path, deblurrer: Deblurrer) -> None:
    """Some are frames of a moving camera, not quite sharp themselves."""
    folders = ("gopro", "gopro_gamma", "reds/val")
    pairs = [p for f in folders for p in find_pairs(shared_data / f, "test")]
    sharp = [middle(pair.sharp, 640, 360) for pair in pairs]
    fidelity_db = [psnr(deblurrer.restore(picture), picture) for picture in sharp]
    assert np.mean(fidelity_db) >= 40, fidelity_db
    assert min(fidelity_db) >= 36, fidelity_db


def test_difficult_sharp_photos_come_back_unharmed(shared_data: Path, deblurrer: Deblurrer) -> None:
    """Soft shading, fur, defocus, fine patterns, text. What comes out as it went in counts 100."""
    names = HARM_LIST.read_text("utf-8").split()
    photos = [middle(shared_data / HARM_FOLDER / name, 320, 320) for name in names]
    fidelity_db = [min(psnr(deblurrer.restore(photo), photo), 100.0) for photo in photos]
    assert np.mean(fidelity_db) >= HARM_DB - 1, fidelity_db
    assert min(fidelity_db) >= WORST_HARM_DB - 0.5, fidelity_db
