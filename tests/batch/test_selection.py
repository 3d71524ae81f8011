"""Restoring a part only: everything else stays, to the bit, and no edge is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deblurcli.batch.selection import FEATHER_PX, Selection
from deblurcli.cli import main
from deblurcli.errors import DeblurError

MakePhoto = Callable[..., Path]


class Inverter:
    """Stands in for a network: gives the negative, and remembers how much it saw."""

    overlap_px = 50

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def restore(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.seen.append(image.shape[:2])
        return np.iinfo(image.dtype).max - image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_outside_is_untouched_and_inside_restored(dtype: type) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (900, 700, 3)).astype(dtype)
    before = pixels.copy()
    network = Inverter()
    result = Selection((300, 400, 100, 80)).restore(network, pixels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pixels, before)
    changed = (result != pixels).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (400, 479, 300, 399)
    inner = np.s_[400 + FEATHER_PX : 480 - FEATHER_PX, 300 + FEATHER_PX : 400 - FEATHER_PX]
    np.testing.assert_array_equal(result[inner], np.iinfo(dtype).max - pixels[inner])
    assert network.seen == [(180, 200)]


def test_edges_are_soft_but_not_at_the_pictures_own() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    result = Selection((0, 0, 100, 100)).restore(Inverter(), pixels)  # type: ignore[arg-type]
    row = result[0, :, 0].astype(int)
    assert row[0] == 255  # the region ends with the picture there
    steps = -np.diff(row)[100 - FEATHER_PX : 100]
    assert steps.max() <= 255 / FEATHER_PX + 1
    assert row[99] > 0 == row[100]


def test_a_mask_and_its_greys() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[:40] = 128
    mask[40:] = 255
    mask[:, :20] = 0
    pixels = np.full((60, 80, 3), 100, np.uint8)
    result = Selection(None, mask).restore(Inverter(), pixels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(result[mask == 0], 100)
    assert 125 <= result[10, 60, 0] <= 130  # half of the way from 100 to 155
    assert result[59, 60, 0] == 155
    nothing = Selection(None, np.zeros((60, 80), np.uint8))
    np.testing.assert_array_equal(nothing.restore(Inverter(), pixels), pixels)  # type: ignore[arg-type]


def test_what_does_not_fit_is_said(tmp_path: Path, make_photo: MakePhoto) -> None:
    mask = make_photo(tmp_path / "mask.png", size=(20, 10))
    pixels = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(DeblurError, match=r"is 48x32 pixels, but .*mask.png 20x10; give a mask"):
        Selection.read(mask).check("a.png", pixels)
    with pytest.raises(DeblurError, match="lies outside of its 48x32 pixels"):
        Selection((48, 0, 5, 5)).check("a.png", pixels)
    Selection((47, 31, 500, 500)).check("a.png", pixels)


def test_the_command(
    tmp_path: Path,
    make_photo: MakePhoto,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    blurred = np.asarray(Image.open(make_photo(Path("a.png"), size=(120, 90))))
    make_photo(Path("b.png"), size=(40, 30))
    mask = np.zeros((90, 120), np.uint8)
    mask[30:60, 40:80] = 255
    Image.fromarray(mask).save("mask.png")
    own = ["--weights", str(tiny_weights), "--precision", "fp32"]
    assert main(["a.png", "--mask", "mask.png", "-o", "m.png", *own]) == 0
    assert main(["a.png", "--region", "40,30,40,30", "-o", "r.png", *own]) == 0
    by_mask, by_region = (np.asarray(Image.open(name)) for name in ("m.png", "r.png"))
    np.testing.assert_array_equal(by_mask, by_region)
    np.testing.assert_array_equal(by_mask[mask == 0], blurred[mask == 0])
    assert (by_mask[mask > 0] != blurred[mask > 0]).any()
    capsys.readouterr()
    # One photo of another size fails alone.
    assert main(["a.png", "b.png", "-o", "out/", "--mask", "mask.png", "--json", *own]) == 1
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["status"] for job in jobs] == ["failed", "done"] or [
        job["status"] for job in jobs
    ] == ["done", "failed"]
    assert main(["a.png", "--region", "1,2,3"]) == 2
    assert "'--region': '1,2,3' is not X,Y,W,H" in capsys.readouterr().err
    Path("clip.mp4").write_bytes(b"")
    assert main(["clip.mp4", "--region", "1,2,3,4", *own]) == 2
    assert "--region: is for photos, but there are videos" in capsys.readouterr().err
