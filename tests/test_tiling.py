"""Tiles: what they cover, and that fading between them adds up to the whole image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblurcli.deblurrer import restore_strips
from deblurcli.tiling import Values, blend_weights, plan_spans

lengths = st.integers(1, 400)
tiles = st.integers(1, 150)
overlaps = st.integers(0, 120)
alignments = st.sampled_from([1, 2, 8, 32])


@settings(deadline=None)
@given(length=lengths, tile=tiles, overlap=overlaps, alignment=alignments)
def test_spans_cover_and_share_as_asked(
    length: int, tile: int, overlap: int, alignment: int
) -> None:
    spans = plan_spans(length, tile, overlap, alignment)
    assert spans[0].start == 0
    assert spans[-1].stop == length
    longest = max(tile // alignment, 1) * alignment
    shared = min(-(-overlap // alignment) * alignment, longest // alignment // 2 * alignment)
    for span in spans:
        assert span.start % alignment == 0
        assert 0 < span.stop - span.start <= max(tile, alignment)
    for before, after in itertools.pairwise(spans):
        assert before.start < after.start
        assert before.stop <= after.stop
        # The last span may be cut off by the image's end, never what it shares.
        assert before.stop - after.start >= min(shared, length - after.start)
    if length <= tile:
        assert len(spans) == 1


@settings(deadline=None)
@given(length=lengths, tile=tiles, overlap=overlaps, alignment=alignments)
def test_weights_of_every_pixel_sum_to_one(
    length: int, tile: int, overlap: int, alignment: int
) -> None:
    spans = plan_spans(length, tile, overlap, alignment)
    total = np.zeros(length)
    for span, weight in zip(spans, blend_weights(spans), strict=True):
        assert (weight >= 0).all()
        total[span] += weight
    np.testing.assert_allclose(total, np.ones(length), atol=1e-6)


def test_as_few_and_as_equal_tiles_as_possible() -> None:
    assert len(plan_spans(1000, 1000, 64, 32)) == 1
    spans = plan_spans(1001, 1000, 64, 32)
    assert len(spans) == 2
    # Not 1000 and a sliver: two of about half, which costs less.
    assert max(span.stop - span.start for span in spans) < 600


def test_weights_fade_linearly_in_the_middle_of_what_two_tiles_share() -> None:
    first, second = plan_spans(160, 96, 32, 32)
    fade = blend_weights([first, second])[0][second.start :]
    assert len(fade) == 32
    assert (fade[:8] == 1).all()
    np.testing.assert_allclose(np.diff(fade[8:24]), np.full(15, -1 / 16), atol=1e-6)
    assert (fade[24:] == 0).all()


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "alignment"),
    [(0, 8, 2, 1), (8, 0, 2, 1), (8, 8, -1, 1), (8, 8, 2, 0)],
)
def test_senseless_sizes_are_refused(length: int, tile: int, overlap: int, alignment: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        plan_spans(length, tile, overlap, alignment)


def tiled(image: Values, function, **settings_px: int) -> Values:  # type: ignore[no-untyped-def]
    """`function` applied tile by tile; asserts that the strips are in order and complete."""
    height, width = image.shape[:2]
    strips, row = [], 0
    for rows, strip in restore_strips(
        lambda rows, columns: function(image[rows, columns]), height, width, **settings_px
    ):
        assert rows.start == row
        assert strip.shape == (rows.stop - rows.start, width, image.shape[2])
        assert strip.dtype == np.float32
        row = rows.stop
        strips.append(strip.copy())
        strip.fill(np.nan)  # the receiver's to change: must not reach later strips
    assert row == height
    return np.concatenate(strips)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    tile=st.integers(1, 90),
    overlap=st.integers(0, 60),
    alignment=alignments,
)
def test_tiled_equals_untiled_for_functions_of_single_pixels(
    height: int, width: int, tile: int, overlap: int, alignment: int
) -> None:
    image = np.random.default_rng(0).random((height, width, 2), np.float32)
    result = tiled(
        image,
        lambda pixels: 1.5 * pixels - 0.25,
        tile_px=tile,
        overlap_px=overlap,
        alignment_px=alignment,
    )
    np.testing.assert_allclose(result, 1.5 * image - 0.25, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_tiled_equals_untiled_for_local_functions(height: int, width: int) -> None:
    """A 5×5 filter sees 2 px far: less than the quarter of the overlap that is thrown away."""
    image = np.random.default_rng(0).random((height, width, 1), np.float32)

    def blur(pixels: Values) -> Values:
        padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
        return np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (0, 1)).mean((3, 4))

    result = tiled(image, blur, tile_px=64, overlap_px=16, alignment_px=8)
    np.testing.assert_allclose(result, blur(image), atol=1e-6)


def test_only_one_row_of_tiles_is_held() -> None:
    """The first strip comes after the first row of tiles, not at the end."""
    calls: list[tuple[slice, slice]] = []

    def restore(rows: slice, columns: slice) -> Values:
        calls.append((rows, columns))
        return np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.float32)

    strips = restore_strips(restore, 1000, 300, tile_px=100, overlap_px=20)
    _, strip = next(strips)
    assert {rows.start for rows, _ in calls} == {0}
    assert len(strip) < 100
    list(strips)
    assert len({rows.start for rows, _ in calls}) > 10


def test_the_whole_image_is_handed_through_where_it_fits() -> None:
    image = np.random.default_rng(0).random((30, 50, 3), np.float32)
    strips = list(
        restore_strips(lambda r, c: image[r, c], 30, 50, tile_px=50, overlap_px=8, alignment_px=8)
    )
    assert len(strips) == 1
    assert np.array_equal(strips[0][1], image)


def test_each_tile_is_told_of() -> None:
    told: list[tuple[int, int]] = []
    strips = restore_strips(
        lambda r, c: np.zeros((r.stop - r.start, c.stop - c.start, 3), np.float32),
        *(200, 300),
        tile_px=100,
        overlap_px=0,
        on_tile=lambda done, count: told.append((done, count)),
    )
    list(strips)
    assert told == [(done, 6) for done in range(1, 7)]
