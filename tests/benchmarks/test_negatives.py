"""The parts that the network changes most are found where they are, and written as they are."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import negatives
import numpy as np
import pytest
from PIL import Image

from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture


def test_most_changed_parts_come_first_and_apart() -> None:
    before = np.full((256, 384, 3), 100, np.uint8)
    after = before.copy()
    after[64:128, 320:384] += 20
    after[192:256, 0:64] += 10
    parts = list(negatives.most_changed(before, after, size_px=64, count=5, below_db=45))
    assert [(rows.start, columns.start) for _, rows, columns in parts[:1]] == [(64, 320)]
    assert (192, 0) in [(rows.start, columns.start) for _, rows, columns in parts]
    assert parts[0][0] == pytest.approx(20 * math.log10(255 / 20))
    for index, (_, rows, columns) in enumerate(parts):
        for _, others, other_columns in parts[:index]:
            apart = abs(rows.start - others.start), abs(columns.start - other_columns.start)
            assert max(apart) > 32


def test_sizes_that_are_nearly_alike_are_taken_once() -> None:
    photo = np.zeros((768, 1536, 3), np.uint8)
    sizes = [(side, smaller.shape) for side, smaller in negatives.scaled(photo, [2400, 1500, 640])]
    assert sizes == [(1536, (768, 1536, 3)), (640, (320, 640, 3))]


def test_unchanged_photos_give_nothing() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    assert not list(negatives.most_changed(photo, photo, 64, count=3, below_db=45))


def test_command_writes_pairs_that_are_equal_and_leaves_out_what_is_named(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, output, names = tmp_path / "photos", tmp_path / "out", tmp_path / "names.txt"
    photos.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    for name in ("held.png", "taken.png"):
        Image.fromarray(noise).save(photos / name)
    names.write_text("held.png\n")
    words = f"-o {output} --weights {tiny_weights} --leave-out {names} --sides 160 120 --size 64"
    monkeypatch.setattr("sys.argv", ["negatives.py", str(photos), *words.split(), "--below", "99"])
    negatives.main()
    pairs = find_pairs(output)
    assert any("-160-" in pair.name for pair in pairs)
    monkeypatch.setattr(
        "sys.argv",
        [*sys.argv[:2], *words.replace(str(output), str(tmp_path / "any")).split(), "--random"],
    )
    negatives.main()
    anywhere = find_pairs(tmp_path / "any")
    assert [pair.name for pair in anywhere] == [f"taken-160-{number}" for number in (1, 2, 3)]
    assert len({read_picture(pair.sharp).tobytes() for pair in anywhere}) == 3
    for pair in pairs + anywhere:
        assert pair.name.startswith("taken-")
        part = read_picture(pair.sharp)
        np.testing.assert_array_equal(read_picture(pair.blurred), part)
        if "-160-" in pair.name:  # at its own size: a part of the photo, pixel by pixel
            windows = np.lib.stride_tricks.sliding_window_view(noise, part.shape)
            assert (windows == part).all(axis=(-3, -2, -1)).any()
