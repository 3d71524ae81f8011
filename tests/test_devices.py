"""Which device and precision are chosen, also on machines unlike this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deblurcli import devices
from deblurcli.devices import (
    ConvolutionShape,
    bf16_speedup,
    choose_device,
    choose_precision,
    describe_devices,
    int8_speedup,
)
from deblurcli.errors import DeviceError, UsageError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Pretends to be a machine with so many GPUs, and so on."""

    def pretend(
        *,
        gpus: int = 0,
        capability: tuple[int, int] = (8, 0),
        mps: bool = False,
        built_for_cuda: bool = True,
        cpu: tuple[str, ...] = (),
    ) -> None:
        monkeypatch.setattr(torch.version, "cuda", "12.4" if built_for_cuda else None)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        for query in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, query, lambda q=query: q in cpu, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "mps", "expected"),
    [(0, False, "cpu"), (0, True, "mps"), (1, False, "cuda:0"), (2, True, "cuda:0")],
)
def test_auto_takes_the_fastest(machine, gpus: int, mps: bool, expected: str) -> None:  # type: ignore[no-untyped-def]
    machine(gpus=gpus, mps=mps)
    assert str(choose_device("auto")) == expected


def test_names(machine) -> None:  # type: ignore[no-untyped-def]
    machine(gpus=2, mps=True)
    for name, expected in {
        "cpu": "cpu",
        "CPU": "cpu",
        " cuda ": "cuda:0",
        "cuda:1": "cuda:1",
        "mps": "mps",
    }.items():
        assert str(choose_device(name)) == expected


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:1:2", "0"]
)
def test_other_names_are_usage_errors(machine, name: str) -> None:  # type: ignore[no-untyped-def]
    machine(gpus=4, mps=True)
    with pytest.raises(UsageError, match="give auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "gpus", "built", "words"),
    [
        ("cuda", 0, False, "without CUDA"),
        ("cuda", 0, True, "no CUDA device"),
        ("cuda:2", 2, True, "cuda:0 to cuda:1"),
        ("cuda:1", 1, True, "give one of cuda:0"),
        ("mps", 0, True, "no Apple GPU"),
    ],
)
def test_absent_devices_say_what_to_do(  # type: ignore[no-untyped-def]
    machine, name: str, gpus: int, built: bool, words: str
) -> None:
    machine(gpus=gpus, built_for_cuda=built)
    with pytest.raises(DeviceError, match=words) as caught:
        choose_device(name)
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith(name + ": ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16"), ((8, 9), "bf16"), ((12, 0), "bf16")],
)
def test_bf16_on_cuda_only_where_native(  # type: ignore[no-untyped-def]
    machine, capability: tuple[int, int], expected: str
) -> None:
    machine(gpus=1, capability=capability)
    precision = choose_precision("auto", CUDA)
    assert precision.name == expected
    assert "{}.{}".format(*capability) in precision.reason


@pytest.mark.parametrize(
    ("supported", "speedup", "expected"),
    [
        ((), 2.0, "fp32"),
        (("_is_avx512_bf16_supported",), 2.0, "bf16"),
        (("_is_avx512_bf16_supported",), 0.63, "fp32"),
        (("_is_amx_tile_supported",), 5.0, "bf16"),
    ],
)
def test_bf16_on_cpus_only_where_native_and_measured_to_be_faster(  # type: ignore[no-untyped-def]
    machine,
    monkeypatch: pytest.MonkeyPatch,
    supported: tuple[str, ...],
    speedup: float,
    expected: str,
) -> None:
    machine(cpu=supported)
    monkeypatch.setattr(devices, "bf16_speedup", lambda shape: speedup)
    monkeypatch.setattr(devices, "int8_speedup", lambda channels, beside: 1.5)
    precision = choose_precision("auto", CPU)
    assert precision.name == expected
    assert ("measured" in precision.reason) == bool(supported)
    if supported:
        assert f"{speedup:.1f} times" in precision.reason


@pytest.mark.parametrize(
    ("bf16", "int8", "expected", "beside"),
    [
        (2.0, 1.5, "bf16", "bf16"),  # AMD Zen 4
        (2.0, 3.0, "int8", "bf16"),
        (0.6, 3.0, "int8", "fp32"),  # Sapphire Rapids without AMX
        (0.6, 0.0, "fp32", "fp32"),  # no such kernels
    ],
)
def test_int8_is_taken_where_a_block_is_far_faster(
    machine,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
    bf16: float,
    int8: float,
    expected: str,
    beside: str,
) -> None:
    machine(cpu=("_is_avx512_bf16_supported",))
    monkeypatch.setattr(devices, "X86", True)
    monkeypatch.setattr(devices, "bf16_speedup", lambda shape: bf16)
    monkeypatch.setattr(devices, "int8_speedup", lambda channels, beside: int8)
    precision = choose_precision("auto", CPU)
    assert precision.name == expected
    assert precision.name != "int8" or precision.beside_int8 == beside
    assert "measured" in precision.reason
    # Training, and networks without gated blocks, never; nor another kind of machine.
    assert choose_precision("auto", CPU, ConvolutionShape(gated=False)).name == beside
    monkeypatch.setattr(devices, "X86", False)
    assert choose_precision("auto", CPU).name == beside


def test_the_measurement_is_kept_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "new")
    shape, state, threads = (
        ConvolutionShape(8, 16, 3),
        torch.get_rng_state(),
        torch.get_num_threads(),
    )
    assert 0.001 < bf16_speedup(shape) < 1000
    (key,) = known = json.loads((tmp_path / "new/precision.json").read_text())
    for fact in (torch.__version__, "thread", "bf16, (8, 16, 3)"):
        assert fact in key
    known[key] = 3.25  # as if measured on a quieter day
    (tmp_path / "new/precision.json").write_text(json.dumps(known))
    assert bf16_speedup(shape) == 3.25
    bf16_speedup(ConvolutionShape(4, 4, 1))
    assert (int8_speedup(8, "fp32") > 0) == (int8_speedup(8, "bf16") > 0) == devices.X86
    measured = 4 if devices.X86 else 2
    assert len(json.loads((tmp_path / "new/precision.json").read_text())) == measured
    # Whoever trains goes on as before.
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    (tmp_path / "new/precision.json").write_text("damaged")
    assert bf16_speedup(shape) > 0
    monkeypatch.setattr(devices.platformdirs, "user_cache_path", lambda *_, **__: Path("/dev/null"))
    assert bf16_speedup(shape) > 0  # where nothing can be kept it is measured each time


@pytest.mark.skipif(not devices.X86, reason="x86 only")
def test_int8_is_left_out_by_a_pytorch_without_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "onednn", object())
    assert int8_speedup(8, "fp32") == 0


def test_a_pytorch_that_can_not_tell_gets_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for query in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, query, raising=False)
    assert choose_precision("auto", CPU, ConvolutionShape(gated=False)).name == "fp32"
    assert choose_precision("auto", CPU).beside_int8 == "fp32"


def test_mps_is_not_trusted_with_half_precision_unasked() -> None:
    assert choose_precision("auto", MPS).name == "fp32"
    assert choose_precision("fp16", MPS).name == "fp16"


def test_asked_precision_is_honoured_with_a_word_where_it_is_slow(machine) -> None:  # type: ignore[no-untyped-def]
    machine(gpus=1, capability=(7, 5))
    assert choose_precision("bf16", CPU).name == "bf16"
    assert "slow" in choose_precision("bf16", CPU).reason
    assert "slow" in choose_precision("bf16", CUDA).reason
    assert choose_precision("fp16", CUDA).name == "fp16"
    assert choose_precision("fp32", CUDA).name == "fp32"


@pytest.mark.parametrize(("name", "device"), [("fp16", CPU), ("bf16", MPS)])
def test_precision_that_the_device_lacks(name: str, device: torch.device) -> None:
    with pytest.raises(DeviceError, match="use --precision"):
        choose_precision(name, device)


def test_unknown_precision() -> None:
    with pytest.raises(UsageError, match="fp32, bf16, fp16 or int8"):
        choose_precision("half", CPU)


def test_this_machine_is_described() -> None:
    described = describe_devices()
    cpu = described[-1]
    assert cpu["name"] == "cpu"
    assert cpu["model"]
    chosen = choose_precision("auto", CPU)
    assert (cpu["precision"], cpu["reason"]) == (chosen.name, chosen.reason)
    assert cpu["memory_bytes"] is None or int(cpu["memory_bytes"]) > 2**28
    # What auto takes comes first.
    assert described[0]["name"] == str(choose_device("auto"))


def test_description_without_proc_and_sysconf(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(devices, "Path", lambda *_: _Absent())
    monkeypatch.delattr(devices.os, "sysconf", raising=False)
    cpu = describe_devices()[-1]
    assert cpu["memory_bytes"] is None
    assert "thread" in str(cpu["model"])


class _Absent:
    def read_text(self, **_: object) -> str:
        raise FileNotFoundError
