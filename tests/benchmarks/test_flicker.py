"""The measure of flicker finds what the eye finds, and is not fooled by smearing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flicker import measure, measure_static
from numpy.typing import NDArray
from PIL import Image

Clip = list[NDArray[np.uint8]]


def _add_noise(clip: list[NDArray[Any]], levels: float, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    return _change(clip, [rng.normal(0, levels, (*f.shape[:2], 1)) for f in clip])


def _change(clip: list[NDArray[Any]], amount: Iterable[object]) -> Clip:
    return [
        np.clip(np.rint(frame + np.asarray(more)), 0, 255).astype(np.uint8)
        for frame, more in zip(clip, amount, strict=True)
    ]


@pytest.fixture(scope="module")
def sharp() -> Clip:
    """A textured scene over which the camera pans by 3 pixels a frame, with sensor noise."""
    from skimage.data import astronaut

    scene = Image.fromarray(astronaut())
    clip = []
    for n in range(6):
        left = 40 + 3 * n
        view = scene.transform(
            (192, 144), Image.Transform.AFFINE, (1, 0, left, 0, 1, 120), Image.Resampling.BICUBIC
        )
        clip.append(np.array(view))
    return _add_noise(clip, 2)


@pytest.fixture(scope="module")
def blurred(sharp: Clip) -> Clip:
    """The same while the shutter stays open: smeared over 5 pixels."""
    smeared = [np.stack([np.roll(f, k, 1) for k in range(-2, 3)]).mean(0) for f in sharp]
    return _add_noise(smeared, 2, seed=1)


def test_a_clip_flickers_as_itself(blurred: Clip) -> None:
    same = measure(blurred, blurred)
    assert (same.brightness, same.detail, same.sharpness) == pytest.approx((1, 1, 1))
    assert same.followed > 0.8
    assert same.passes()


def test_a_perfect_restoration_passes(blurred: Clip, sharp: Clip) -> None:
    flicker = measure(blurred, sharp)
    assert flicker.sharpness > 1.3
    assert flicker.passes(), flicker


def test_pumping_brightness_is_found(blurred: Clip, sharp: Clip) -> None:
    flicker = measure(blurred, _change(sharp, [0, 3, 0, 3, 0, 3]))
    assert flicker.brightness > 1.5
    assert not flicker.passes()


def test_restless_texture_is_found(blurred: Clip, sharp: Clip) -> None:
    flicker = measure(blurred, _add_noise(sharp, 8))
    assert flicker.detail > 1.15
    assert not flicker.passes()


def test_restless_restoration_is_found(blurred: Clip, sharp: Clip) -> None:
    """Every other frame is left blurred: the flicker that uneven restoring makes."""
    uneven = [b if n % 2 else s for n, (b, s) in enumerate(zip(blurred, sharp, strict=True))]
    assert not measure(blurred, uneven).passes()


def test_smearing_is_not_rewarded(blurred: Clip) -> None:
    smeared = [np.array(Image.fromarray(f).reduce(3).resize((192, 144))) for f in blurred]
    in_time = [
        np.uint8((f.astype(int) + b) // 2)
        for f, b in zip(blurred, [blurred[0], *blurred], strict=False)
    ]
    for clip in (smeared, in_time):
        flicker = measure(blurred, clip)
        assert flicker.sharpness < 1
        assert not flicker.passes()


def test_clips_that_cannot_be_compared_are_refused(blurred: Clip) -> None:
    with pytest.raises(ValueError, match="no two frames"):
        measure(blurred[:1], blurred[:1])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        measure(blurred, blurred[:3])


def test_blocks_that_are_invented_anew_are_counted(sharp: Clip) -> None:
    still = _add_noise([sharp[0]] * 4, 1)
    streaks = [frame.copy() for frame in still]
    for n, frame in enumerate(streaks):
        frame[32:48, 64:80, :: 1 + n % 2] //= 2  # one block of 12 x 9 flickers
    assert measure_static(still, still).worse == 0
    found = measure_static(still, streaks)
    assert found.worse == pytest.approx(1 / found.count)
    assert found.worst > 5
    assert not measure_static(still, streaks).passes(limit=0.005)
    assert measure_static(sharp, sharp).share < 0.2  # a camera that pans leaves little standing
