"""What is added to a clip stands still where the clip does, and nothing smears."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurcli.io.videos.neighbours import Steadier

Frame = NDArray[np.uint8]


@pytest.fixture(scope="module")
def scene() -> Frame:
    """(96, 128, 3): texture that is neither black nor white."""
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(60, 180, (24, 32, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def restless(frames: list[Frame]) -> list[Frame]:
    """A network that can't decide: a streak that is there in every other frame."""
    out = [frame + np.uint8(10) for frame in frames]
    for frame in out[::2]:
        frame[40:44] -= 30
    return out


def steady(blurred: list[Frame], restored: list[Frame]) -> list[Frame]:
    made = iter(restored)
    steadier = Steadier(lambda _: next(made))
    return [steadier(frame) for frame in blurred]


def changes(frames: list[Frame]) -> NDArray[np.float64]:
    return np.abs(np.diff(np.asarray(frames, float), axis=0)).mean((1, 2, 3))


def test_a_streak_stops_flickering_where_nothing_moves(scene: Frame) -> None:
    rng = np.random.default_rng(1)
    blurred = [np.uint8(scene + rng.normal(0, 1.5, scene.shape).round()) for _ in range(12)]
    restored = restless(blurred)
    rows = [frame[40:44] for frame in restored], [f[40:44] for f in steady(blurred, restored)]
    inputs = [frame[40:44] for frame in blurred]
    assert changes(rows[0])[4:].min() > 20
    assert (changes(rows[1]) - changes(inputs))[4:].max() < 4


def test_the_first_frame_and_what_moves_are_as_the_network_made_them(scene: Frame) -> None:
    blurred = [np.roll(scene, 3 * n, 1) for n in range(6)]
    restored = restless(blurred)
    for ours, theirs in zip(steady(blurred, restored), restored, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_what_stands_still_is_steadied(scene: Frame) -> None:
    blurred = []
    for n in range(6):
        frame = scene.copy()
        frame[:, 64:] = np.roll(scene[:, 64:], 4 * n, 0)
        blurred.append(frame)
    restored = restless(blurred)
    steadied = steady(blurred, restored)
    np.testing.assert_array_equal(steadied[-1][:, 80:], restored[-1][:, 80:])
    assert changes([f[40:44, :48] for f in steadied])[3:].max() < 5


def test_a_fade_is_followed_at_once(scene: Frame) -> None:
    blurred = [np.uint8(scene + n) for n in range(12)]
    restored = [np.uint8(frame + 10) for frame in blurred]
    for ours, theirs in zip(steady(blurred, restored), restored, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_eight_and_sixteen_bits_may_be_mixed(scene: Frame) -> None:
    blurred = [scene, scene.astype(np.uint16) * 257, scene]
    restored = [scene + np.uint8(10), (scene.astype(np.uint16) + 10) * 257, scene + np.uint8(10)]
    for ours, theirs in zip(steady(blurred, restored), restored, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_size_begins_anew(scene: Frame) -> None:
    smaller = scene[:50, :70]
    restored = [scene + np.uint8(10), smaller]
    np.testing.assert_array_equal(steady([scene, smaller], restored)[1], smaller)


def test_a_size_that_changes_by_less_than_a_cell_begins_anew(scene: Frame) -> None:
    blurred = [scene, scene[:-1, :-2], scene[:-1, :-2]]
    restored = restless(blurred)
    out = steady(blurred, restored)
    assert np.array_equal(out[1], restored[1])
    assert out[2].shape == blurred[2].shape
