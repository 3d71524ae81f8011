"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# pytest-xdist runs one process for each core: more threads would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from PIL import Image

if os.name == "posix":
    # Under nohup, or in the background of a shell, they are ignored, and commands inherit that.
    for _number, _handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(_number) is signal.SIG_IGN:
            signal.signal(_number, _handler)

hypothesis.settings.register_profile("deblur", deadline=None)  # machines may be busy
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile(os.environ.get("DEBLUR_HYPOTHESIS", "deblur"))

Deblur = Callable[..., "subprocess.CompletedProcess[str]"]

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real photos and clips, which are not part of the checkout.

    They lie in the folder that ``DEBLUR_TEST_DATA`` names, else in ``../shared/data``.
    """
    own = os.environ.get("DEBLUR_TEST_DATA")
    folder = Path(own) if own else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real test data: there is no {folder}; DEBLUR_TEST_DATA names the folder")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a network small enough for tests, with parameters from a fixed seed.

    It changes a picture visibly, but does not restore anything.
    """
    import torch

    from deblurcli.models.config import GeneratorConfig
    from deblurcli.models.generator import MultiScaleGenerator
    from deblurcli.weights.files import ModelCard, save_weights

    config = GeneratorConfig(
        body="unet",
        scales=3,
        channels=(8, 8, 8),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1),
        unshuffle=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20170721)
        network = MultiScaleGenerator(config)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network, ModelCard(name="tiny", licence="MIT"))
    return path


@pytest.fixture(scope="session")
def deblur(tiny_weights: Path) -> Deblur:
    """Runs the real ``deblur`` in a process of its own, as a user would without a terminal.

    Its default weights are the tiny ones.
    `prefix` are words before it, of a program that runs it.
    """

    def run(
        *words: str | os.PathLike[str], prefix: Sequence[str] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DEBLUR_WEIGHTS": os.fspath(tiny_weights),
            **options.pop("env", {}),
        }
        options = {"text": True, "encoding": "utf-8", "stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del options["stdin"]
        return subprocess.run(
            [*prefix, sys.executable, "-m", "deblurcli", *map(os.fspath, words)],
            capture_output=True,
            check=False,
            timeout=120,
            env=environment,
            **options,
        )

    return run


@pytest.fixture
def deblur_here(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Deblur:
    """Runs ``deblur`` like the fixture `deblur`, but in this process, which saves seconds."""
    from deblurcli.cli import main

    def run(*words: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("DEBLUR_WEIGHTS", os.fspath(tiny_weights))
        capsys.readouterr()  # what was said before
        code = main([os.fspath(word) for word in words])
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


@pytest.fixture
def make_photo() -> Callable[..., Path]:
    """Writes a small picture with some structure in it, and gives its path."""

    def make(path: Path, size: tuple[int, int] = (48, 32), seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 64 KB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("can't mount a small tmpfs here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `deblur` measures and keeps during the tests stays theirs, in their processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line sets up logging for its process; other tests must not see that."""
    logger = logging.getLogger("deblurcli")
    state = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = state
