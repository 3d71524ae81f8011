"""`Deblurrer`: what goes in comes out in kind, whatever the size, precision or memory."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from deblurcli import Deblurrer
from deblurcli.deblurrer import MIN_TILE_PX, to_floats
from deblurcli.devices import Precision
from deblurcli.errors import DeblurError, DeviceError, DeviceMemoryError, UsageError, WeightsError
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator

CONFIG = GeneratorConfig(
    body="unet",
    scales=2,
    channels=(4, 8),
    encoder_blocks=(1, 1),
    decoder_blocks=(1,),
    unshuffle=2,
)
FULL_SCALE = {"uint8": 255, "uint16": 65535, "float32": 1}
dtypes = st.sampled_from(list(FULL_SCALE))


def make_network(*, offset: float | None = None) -> MultiScaleGenerator:
    """A network from a fixed seed; with `offset` one that adds just that to every pixel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = MultiScaleGenerator(CONFIG).eval().requires_grad_(False)
    if offset is not None:
        for parameter in network.parameters():
            parameter.zero_()
        network.levels[0].tail.bias.fill_(offset)  # type: ignore[union-attr, operator]
    else:
        for level in network.levels:
            level.tail.weight.mul_(20)  # type: ignore[union-attr, operator]
    return network


def make_deblurrer(*, offset: float | None = None, **options: Any) -> Deblurrer:
    options = {"device": "cpu", "precision": "fp32"} | options
    return Deblurrer(make_network(offset=offset), **options)


def make_image(height: int, width: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise, over the whole range."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    waves = np.sin(x / 17 + np.arange(3)) * np.cos(y / 23) / 2 + 0.5
    values = np.clip(waves + rng.normal(0, 0.02, (height, width, 3)), 0, 1)
    full_scale = FULL_SCALE[dtype]
    return (values * full_scale).round().astype(dtype) if full_scale > 1 else values.astype(dtype)


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return np.abs(a.astype(np.float64) - b.astype(np.float64)) / FULL_SCALE[a.dtype.name]


PLAIN = make_deblurrer()


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), dtype=dtypes)
def test_shape_and_dtype_are_kept_and_the_input_untouched(
    height: int, width: int, dtype: str
) -> None:
    image = make_image(height, width, dtype)
    before = image.copy()
    restored = PLAIN.restore(image)
    assert restored.shape == image.shape
    assert restored.dtype == image.dtype
    assert not np.shares_memory(restored, image)
    assert np.array_equal(image, before)
    assert restored.flags.c_contiguous
    assert restored.min() >= 0
    assert restored.max() <= FULL_SCALE[dtype]


def test_it_does_change_the_image() -> None:
    image = make_image(40, 56)
    assert differences(PLAIN.restore(image), image).mean() > 2 / 255


def test_memory_layout_does_not_matter() -> None:
    image = make_image(40, 56)
    expected = PLAIN.restore(image)
    read_only = image.copy()
    read_only.flags.writeable = False
    turned = np.ascontiguousarray(image.transpose(2, 1, 0)).transpose(2, 1, 0)
    backwards = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    wider = np.zeros((40, 60, 4), np.uint8)
    wider[:, 2:58, :3] = image
    for same in (read_only, turned, backwards, wider[:, 2:58, :3]):
        assert np.array_equal(PLAIN.restore(same), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tile", [0, MIN_TILE_PX])
def test_a_network_that_changes_nothing_is_lossless(precision: str, tile: int) -> None:
    nothing = make_deblurrer(offset=0.0, precision=precision, tile=tile)
    every_16_bit_value = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = np.stack([every_16_bit_value, every_16_bit_value.T, every_16_bit_value[::-1]], 2)
    assert np.array_equal(nothing.restore(image), image)
    image_8_bit = (image >> 8).astype(np.uint8)
    assert np.array_equal(nothing.restore(image_8_bit), image_8_bit)


def test_values_are_rounded_to_nearest_and_stay_in_range() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    for offset, expected in (
        (0.4, 100),
        (0.6, 101),
        (-0.4, 100),
        (-0.6, 99),
        (300, 255),
        (-300, 0),
    ):
        assert (make_deblurrer(offset=offset / 255).restore(grey) == expected).all()
    fine = np.full((8, 8, 3), 0.5, np.float32)
    assert make_deblurrer(offset=0.25).restore(fine) == pytest.approx(0.75)
    assert (make_deblurrer(offset=7.0).restore(fine) == 1.0).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_16_bit_photos_stay_finer_than_8_bit(precision: str) -> None:
    deblurrer = make_deblurrer(precision=precision)
    restored = deblurrer.restore(make_image(96, 96, "uint16"))
    assert len(np.unique(restored)) > 10_000


def test_strength_lies_between_the_two() -> None:
    image = make_image(70, 50, "uint16")
    full = make_deblurrer().restore(image)
    assert np.array_equal(make_deblurrer(strength=0.0).restore(image), image)
    assert np.array_equal(make_deblurrer(strength=1.0).restore(image), full)
    quarter = make_deblurrer(strength=0.25, tile=MIN_TILE_PX).restore(image)
    expected = image + 0.25 * (full.astype(np.float64) - image)
    inside = (full > 0) & (full < 65535)  # where full was not cut off
    assert np.abs(quarter - expected)[inside].max() <= 1


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 420), width=st.integers(1, 420), dtype=dtypes)
def test_tiled_is_untiled_to_the_eye(height: int, width: int, dtype: str) -> None:
    image = make_image(height, width, dtype)
    whole = make_deblurrer(tile=0).restore(image)
    tiled = make_deblurrer(tile=160).restore(image)
    assert differences(tiled, whole).mean() < 0.1 / 255
    assert differences(tiled, whole).max() < 2 / 255


class Memory:
    """Stands in the way of a network's forward: a device with room for so many pixels."""

    def __init__(
        self, deblurrer: Deblurrer, error: Callable[[], Exception] | None, max_pixels: int
    ) -> None:
        self.sizes: list[tuple[int, int]] = []
        forward = deblurrer.network.forward

        def limited(blurred: Tensor) -> Tensor:
            height, width = blurred.shape[2:]
            if error is not None and height * width > max_pixels:
                raise error()
            self.sizes.append((height, width))
            return forward(blurred)

        deblurrer.network.forward = limited  # type: ignore[method-assign]


@pytest.mark.parametrize(("height", "width"), [(500, 130), (130, 500), (600, 700)])
def test_no_pass_is_larger_than_the_tile(height: int, width: int) -> None:
    deblurrer = make_deblurrer(tile=200)
    memory = Memory(deblurrer, None, 0)
    deblurrer.restore(make_image(height, width))
    assert max(max(size) for size in memory.sizes) <= 200
    assert sum(h * w for h, w in memory.sizes) < 3 * height * width


def test_large_photos_are_tiled_unasked_and_small_ones_are_not() -> None:
    deblurrer = make_deblurrer()
    memory = Memory(deblurrer, None, 0)
    deblurrer.restore(make_image(720, 1280))
    assert memory.sizes == [(720, 1280)]
    memory.sizes.clear()
    deblurrer.max_pixels = lambda: 500_000  # type: ignore[method-assign]
    deblurrer.restore(make_image(1000, 800))
    assert len(memory.sizes) > 1
    assert max(h * w for h, w in memory.sizes) <= 500_000


def allocator_error() -> Exception:
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 4096000000 bytes. Error code 12 (Cannot allocate memory)"
    )


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 8.0 GB)"),
        lambda: RuntimeError("not enough memory: you tried to allocate 16 bytes."),
        lambda: RuntimeError("could not create a primitive"),
        allocator_error,
        MemoryError,
    ],
)
def test_out_of_memory_halves_the_tile_and_goes_on(
    error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    image = make_image(330, 450)
    expected = make_deblurrer(tile=0).restore(image)
    deblurrer = make_deblurrer()
    memory = Memory(deblurrer, error, 256 * 256)
    with caplog.at_level(logging.WARNING, "deblurcli"):
        restored = deblurrer.restore(image)
    assert differences(restored, expected).mean() < 0.1 / 255
    assert differences(restored, expected).max() < 2 / 255
    assert max(h * w for h, w in memory.sizes) <= 256 * 256
    assert "out of memory" in caplog.text
    # The next image starts with tiles that fit: nothing fails, nothing is said again.
    caplog.clear()
    assert np.array_equal(deblurrer.restore(image[:, ::-1]).shape, image.shape)
    assert caplog.text == ""


def test_in_place_it_is_the_same() -> None:
    image = make_image(500, 450)
    expected = make_deblurrer(tile=200).restore(image)
    held = np.zeros((500, 450, 4), np.uint8)  # as a photo with transparency is held
    held[..., :3] = image
    deblurrer = make_deblurrer(tile=200)
    assert deblurrer.restore(held[..., :3], out=held[..., :3]).base is held
    assert np.array_equal(held[..., :3], expected)
    deblurrer.strength = 0.0
    deblurrer.restore(held[..., :3], out=held[..., :3])
    assert np.array_equal(held[..., :3], expected)


def test_out_of_memory_amid_a_picture_in_place() -> None:
    """Rows that are done are done; with smaller tiles it goes on below them, without a seam."""
    image = make_image(900, 450)
    expected = make_deblurrer(tile=0).restore(image)
    deblurrer = make_deblurrer(tile=512)
    memory = Memory(deblurrer, None, 0)
    deblurrer.restore(image)
    count = len(memory.sizes)
    deblurrer = make_deblurrer(tile=512)
    forward, calls = deblurrer.backend.forward, []

    def fail_late(values: np.ndarray) -> np.ndarray | None:
        calls.append(values.shape)
        return None if len(calls) == count else forward(values)

    deblurrer.backend.forward = fail_late  # type: ignore[method-assign]
    assert count > 1
    deblurrer.restore(image, out=image)
    assert differences(image, expected).mean() < 0.5 / 255
    assert differences(image, expected).max() <= 2 / 255
    assert calls[-1][1] <= 256


def test_out_of_memory_at_the_smallest_tile_is_the_end() -> None:
    deblurrer = make_deblurrer()
    Memory(deblurrer, lambda: torch.OutOfMemoryError("CUDA out of memory"), 100)
    with pytest.raises(DeviceMemoryError, match=f"tiles of {MIN_TILE_PX}") as caught:
        deblurrer.restore(make_image(300, 450))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


def test_other_errors_are_bugs_and_stay_visible() -> None:
    deblurrer = make_deblurrer()
    Memory(deblurrer, lambda: RuntimeError("size mismatch"), 0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        deblurrer.restore(make_image(10, 10))


LITTLE_MEMORY = """
import resource, sys
import numpy as np
from deblurcli import Deblurrer
deblurrer = Deblurrer.load(sys.argv[1], device="cpu", precision="fp32", tile=0)
deblurrer.restore(np.zeros((64, 64, 3), np.uint8))
image = np.zeros((1800, 2000, 3), np.uint8)
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = in_use + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert deblurrer.restore(image).shape == image.shape
assert deblurrer.tile_limit_px is not None, "the limit was not felt"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits as Linux has them")
def test_a_process_with_little_memory_really_goes_on(tiny_weights: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, tiny_weights],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert run.returncode == 0, run.stderr


def test_fp16_never_gives_black_pictures(caplog: pytest.LogCaptureFixture) -> None:
    """Where fp16 overflows, that part is computed in fp32."""
    image = make_image(60, 80)
    deblurrer = make_deblurrer()
    expected = deblurrer.restore(image)
    deblurrer.backend.precision = Precision("fp16", "for this test")
    forward = deblurrer.network.forward

    def overflowing(blurred: Tensor) -> Tensor:
        result = forward(blurred)
        return result * torch.inf if torch.is_autocast_enabled("cpu") else result

    deblurrer.network.forward = overflowing  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "deblurcli"):
        assert np.array_equal(deblurrer.restore(image), expected)
    assert "fp16 overflowed" in caplog.text


@settings(max_examples=12, deadline=None)
@given(
    factor=st.sampled_from([1e4, 1e19, 3e38, float("inf"), float("nan")]),
    precision=st.sampled_from(["fp32", "bf16", "fp16"]),
    strength=st.sampled_from([0.1, 1.0]),
)
def test_results_that_are_no_picture_are_never_given(
    factor: float, precision: str, strength: float
) -> None:
    network = make_network()
    for parameter in network.parameters():
        parameter.mul_(factor)
    deblurrer = Deblurrer(network, device="cpu", precision="fp32", strength=strength)
    deblurrer.backend.precision = Precision(precision, "for this test")  # type: ignore[arg-type]
    image = make_image(40, 50)
    with pytest.raises(WeightsError, match=r"its results are no picture.*; use other weights"):
        deblurrer.restore(image)


def test_threads_do_not_disturb_each_other() -> None:
    deblurrer = make_deblurrer(precision="bf16", tile=MIN_TILE_PX)
    images = [make_image(150, 190, seed=seed) for seed in range(6)]
    expected = [deblurrer.restore(image) for image in images]
    results: list[list[np.ndarray]] = [[], []]
    start = threading.Barrier(2)

    def work(mine: list[np.ndarray]) -> None:
        start.wait()
        mine += [deblurrer.restore(image) for image in images]

    threads = [threading.Thread(target=work, args=(mine,)) for mine in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in results:
        assert len(mine) == len(images)
        for a, b in zip(mine, expected, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_batch_is_as_one_by_one(limit: int) -> None:
    deblurrer = make_deblurrer(strength=0.5)
    deblurrer.max_batch = lambda height, width: limit  # type: ignore[method-assign]
    images = [make_image(30, 40, seed=seed) for seed in range(5)]
    images[3:3] = [make_image(30, 41), make_image(30, 41, "uint16"), make_image(40, 30)]
    memory = Memory(deblurrer, None, 0)
    together = deblurrer.restore_batch(images)
    assert len(memory.sizes) == (len(images) if limit == 1 else 5)
    assert len(together) == len(images)
    for image, result in zip(images, together, strict=True):
        assert differences(result, deblurrer.restore(image)).max() <= 1 / 255
    assert deblurrer.restore_batch([]) == []
    deblurrer.strength, count = 0.0, len(memory.sizes)
    unchanged = deblurrer.restore_batch(images)
    assert all(np.array_equal(a, b) for a, b in zip(unchanged, images, strict=True))
    assert len(memory.sizes) == count


def test_a_batch_too_large_for_the_memory_goes_one_by_one() -> None:
    deblurrer = make_deblurrer()
    deblurrer.max_batch = lambda height, width: 4  # type: ignore[method-assign]
    images = [make_image(30, 40, seed=seed) for seed in range(4)]
    expected = [deblurrer.restore(image) for image in images]
    forward = deblurrer.network.forward

    def limited(blurred: Tensor) -> Tensor:
        if len(blurred) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(blurred)

    deblurrer.network.forward = limited  # type: ignore[method-assign]
    for a, b in zip(deblurrer.restore_batch(images), expected, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        ([[0, 0, 0]], TypeError, "NumPy array, not list"),
        (torch.zeros(4, 4, 3), TypeError, "NumPy array, not Tensor"),
        (np.zeros((4, 4, 3), np.float64), TypeError, "not float64"),
        (np.zeros((4, 4, 3), bool), TypeError, "not bool"),
        (np.zeros((4, 4), np.uint8), ValueError, r"shape \(H, W, 3\)"),
        (np.zeros((3, 4, 4), np.uint8), ValueError, r"not \(3, 4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, "shape"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "H, W >= 1"),
        (np.full((4, 4, 3), 255, np.float32), ValueError, "divide by 255"),
        (np.full((4, 4, 3), -0.1, np.float32), ValueError, r"in \[0, 1\]"),
        (np.full((4, 4, 3), np.nan, np.float32), ValueError, "nan"),
    ],
)
def test_other_inputs_are_refused_clearly(image: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PLAIN.restore(image)
    with pytest.raises(error, match=words):
        PLAIN.restore_batch([make_image(4, 4), image])


def test_settings_out_of_range() -> None:
    for options in (
        {"tile": -1},
        {"tile": "large"},
        {"strength": 1.5},
        {"strength": -0.1},
        {"strength": float("nan")},
        {"precision": "double"},
        {"device": "tpu"},
    ):
        with pytest.raises(UsageError):
            make_deblurrer(**options)
        with pytest.raises(UsageError):
            Deblurrer.load("no such weights", **options)  # type: ignore[arg-type]
    with pytest.raises(DeviceError):
        make_deblurrer(precision="fp16")


def test_loading_from_a_file(tiny_weights: Path) -> None:
    deblurrer = Deblurrer.load(tiny_weights, device="cpu", tile="256", offline=True)
    assert Path(deblurrer.weights_path or "") == tiny_weights
    assert deblurrer.card.name == "tiny"
    assert str(deblurrer.device) == "cpu"
    assert deblurrer.precision.name in ("fp32", "bf16")
    assert deblurrer.tile == 256
    image = make_image(33, 45)
    assert differences(deblurrer.restore(image), image).max() > 0
    with pytest.raises(WeightsError):
        Deblurrer.load(tiny_weights.with_name("absent.safetensors"), offline=True)


def test_gpu_tiles_follow_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    deblurrer = make_deblurrer()
    deblurrer.device = deblurrer.backend.device = torch.device("cuda", 0)
    deblurrer.backend.max_tile_px = 2**20
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    sides = []
    for free in (2**26, 2**30, 2**34):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**35))
        sides.append(deblurrer.tile_px(20_000, 10_000))
    assert sides == sorted(set(sides))
    assert sides[-1] > 2000
    assert deblurrer.tile_px(1000, 1000) == 1000  # untiled
    assert deblurrer.max_batch(64, 64) > 1
    deblurrer.tile = MIN_TILE_PX
    assert deblurrer.max_batch(MIN_TILE_PX, MIN_TILE_PX) > 1
    assert deblurrer.max_batch(MIN_TILE_PX, MIN_TILE_PX + 1) == 1  # the user wants it in tiles


@pytest.mark.parametrize("ensemble", [2, 4, 8])
def test_an_ensemble_is_the_mean_of_flipped_and_turned_copies(ensemble: int) -> None:
    image = np.random.default_rng(0).uniform(0.4, 0.6, (40, 56, 3)).astype(np.float32)

    def restore(image: NDArray[np.float32], ensemble: int = 1) -> NDArray[np.float32]:
        # A tenth of the change, so that nothing is clipped.
        settings: dict[str, Any] = {"precision": "fp32", "strength": 0.1, "ensemble": ensemble}
        return Deblurrer(PLAIN.network, device="cpu", **settings).restore(image)

    back = []
    for turns in (0, 2, 1, 3):
        turned = np.rot90(image, turns)
        back.append(np.rot90(restore(turned), -turns))
        back.append(np.rot90(restore(turned[:, ::-1])[:, ::-1], -turns))
    ours = restore(image, ensemble)
    np.testing.assert_allclose(ours, np.mean(back[:ensemble], axis=0), atol=2e-6)
    assert np.abs(ours - back[0]).max() > 1e-3


def test_an_ensemble_of_three_is_refused() -> None:
    with pytest.raises(UsageError, match="give 1, 2, 4 or 8"):
        Deblurrer(PLAIN.network, device="cpu", ensemble=3)


def test_a_strength_of_0_gives_the_image_itself() -> None:
    image = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    ours = Deblurrer(PLAIN.network, device="cpu", strength=0.0).restore(image)
    np.testing.assert_array_equal(ours, image)
    assert ours is not image


def test_one_large_image_of_a_batch_is_never_held_in_floating_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def note(image: NDArray[Any]) -> NDArray[np.float32]:
        sizes.append(image[..., 0].size)
        return to_floats(image)

    monkeypatch.setattr("deblurcli.deblurrer.to_floats", note)
    image = np.zeros((400, 300, 3), np.uint8)
    Deblurrer(PLAIN.network, device="cpu", tile=128).restore_batch([image])
    assert max(sizes) <= 160 * 160


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 only")
def test_int8_is_near_fp32_and_makes_no_steps() -> None:
    exact, coarse = (Deblurrer.load(device="cpu", precision=p) for p in ("fp32", "int8"))
    sharp = skimage.data.astronaut()[:320, :320].astype(float)
    image = np.mean([np.roll(sharp, n, axis=1) for n in range(9)], axis=0).round().astype(np.uint8)
    expected = exact.restore(image)
    assert differences(expected, image).mean() > 0.5 / 255  # there is something to get wrong
    assert differences(coarse.restore(image), expected).mean() < 0.4 / 255
    ramp = np.linspace(20000, 24000, 512).round().astype(np.uint16)
    gradient = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (256, 512, 3)))
    # Neighbours differ by 8 levels of 65535; a level of 8 bits is 257 of them.
    restored = coarse.restore(gradient)[64:-64, 64:-64].astype(int)
    assert np.abs(np.diff(restored, axis=1)).max() < 257 / 2
    assert np.abs(np.diff(restored.mean(axis=(0, 2)))).max() < 257 / 4
    assert len(np.unique(restored[64, :, 1])) > 300


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 only")
def test_int8_leaves_the_network_that_it_is_given_as_it_was() -> None:
    config = GeneratorConfig("unet", 1, (8, 8), (1, 1), (1,), unshuffle=2, block="gated")
    network = MultiScaleGenerator(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = make_image(40, 60)
    restored = Deblurrer(network, device="cpu", precision="int8").restore(image)
    assert differences(restored, Deblurrer(network, device="cpu").restore(image)).mean() < 1 / 255
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_int8_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(DeblurError, match=r"gated blocks|x86"):
        make_deblurrer(precision="int8")
