"""Results become targets where there is much to learn, and pairs keep their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import targets
from numpy.typing import NDArray
from PIL import Image

from deblurcli import Deblurrer
from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture

SHARP = np.random.default_rng(0).integers(40, 200, (64, 64, 3), np.uint8)


def changed(levels: int) -> NDArray[np.uint8]:
    return SHARP + np.uint8(levels)


class Fixed:
    """Restores every picture to one that is a number of levels from the sharp one."""

    def __init__(self, levels: int) -> None:
        self.restored = changed(levels)

    def restore(self, _: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.restored


@pytest.mark.parametrize(
    ("blurred_by", "restored_by", "takes_result"),
    [(20, 6, True), (20, 1, False), (3, 6, False)],
    ids=["blurred", "nearly restored", "hardly blurred"],
)
def test_target(blurred_by: int, restored_by: int, takes_result: bool) -> None:
    deblurrer = Fixed(restored_by)
    target = targets.choose_target(changed(blurred_by), SHARP, deblurrer)  # type: ignore[arg-type]
    np.testing.assert_array_equal(target, deblurrer.restored if takes_result else SHARP)


def test_command_keeps_blurred_pictures_and_names(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, output = tmp_path / "made", tmp_path / "out"
    for name in ("a.png", "holiday/b.png"):
        for kind, pixels in (("blur", changed(30)), ("sharp", SHARP)):
            (made / kind / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(made / kind / name)
    words = f"{made} -o {output} --weights {tiny_weights} --ensemble 2"
    monkeypatch.setattr("sys.argv", ["targets.py", *words.split()])
    targets.main()
    wanted = Deblurrer.load(tiny_weights, ensemble=2).restore(changed(30))
    pairs = find_pairs(output)
    assert len(pairs) == 2
    for pair in pairs:
        np.testing.assert_array_equal(read_picture(pair.blurred), changed(30))
        np.testing.assert_array_equal(read_picture(pair.sharp), wanted)
