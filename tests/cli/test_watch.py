"""``deblur watch``: what arrives is restored once it is completely written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

MakePhoto = Callable[..., Path]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends the command by a signal")


@pytest.fixture
def watching(
    tmp_path: Path, make_photo: MakePhoto, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The real command at work, and what it says."""
    monkeypatch.chdir(tmp_path)
    make_photo(Path("in/before.png"))
    words = ["watch", "in", "-o", "out", "-r", "--settle", "0.6", "--weights", str(tiny_weights)]
    words += ["--damaged", "keep"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deblurcli", *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "deblur: watching in; Ctrl-C ends it\n"
    yield process, process.stderr
    process.kill()
    process.wait()
    process.stderr.close()


def test_what_arrives_is_restored_when_it_is_complete(
    watching: tuple[subprocess.Popen[str], IO[str]], tmp_path: Path, make_photo: MakePhoto
) -> None:
    process, said = watching
    assert said.readline().startswith("deblur: wrote out/before.png in ")
    whole = make_photo(tmp_path / "elsewhere.jpg", size=(320, 240)).read_bytes()
    Path("in/deep").mkdir()
    with Path("in/deep/slow.jpg").open("wb") as file:
        for start in range(0, len(whole), len(whole) // 8):  # longer than --settle in all
            file.write(whole[start : start + len(whole) // 8])
            file.flush()
            time.sleep(0.15)
            assert not Path("out/deep").exists()
    assert said.readline().startswith("deblur: wrote out/deep/slow.jpg in ")
    with Image.open("out/deep/slow.jpg") as image:
        image.load()
        assert image.size == (320, 240)

    # A bad file is told of once and stops nothing; mended, it is restored.
    Path("in/bad.png").write_text("no photo")
    assert said.readline().startswith("deblur: in/bad.png: ")
    make_photo(Path("in/next.png"))
    assert said.readline().startswith("deblur: wrote out/next.png in ")
    make_photo(Path("in/bad.png"))
    assert said.readline().startswith("deblur: wrote out/bad.png in ")

    # An empty result is none, and what can't be planned is told of once and ends nothing.
    Path("out/empty.png").touch()
    make_photo(Path("in/empty.png"))
    assert said.readline().startswith("deblur: wrote out/empty.png in ")

    Path("in/half.jpg").write_bytes(whole[: len(whole) // 2])
    assert said.readline().startswith("deblur: wrote out/half.jpg in ")
    assert "in/half.jpg: " in said.readline()  # the note of what is missing

    for name in ("in/deep", "out/deep"):
        shutil.rmtree(name)
    Path("out/deep").touch()  # a file, where a folder has to be
    make_photo(Path("in/deep/last.png"))
    assert "out/deep" in said.readline()

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert said.read() == (
        "deblur: interrupted; started again, it restores what arrived in between\n"
    )
    assert not list(tmp_path.rglob("*.part"))
