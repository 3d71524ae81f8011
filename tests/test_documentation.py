"""Every command and every program that README and docs show does what it says it does, in order.

A document is worked through from top to bottom in one folder that holds small files of the names
that it uses. What is changed of a command is only how long it trains, and how small the networks
are that it trains or exports.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from published_parameters import random_parameters

from deblurcli.cli import main

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Set up, or measure for hours on whole data sets: what they start is tested elsewhere.
NOT_RUN = {"apt", "docker", "git", "nox", "pip", "pipx", "pre-commit", "python3", "uv"}
NEEDS_THE_NETWORK = ("deblur weights pull",)
RUNS_UNTIL_STOPPED = ("deblur serve", "deblur watch")
SMALL = ["--steps", "2", "--set", "batch=2", "--set", "patch_px=32", "--validate-limit", "1"]
SMALL_COMPACT = ["--set", "channels=[8,8]", "--set", "scales=2", "--set", "decoder_blocks=[1]"]
SMALL_COMPACT += ["--set", "depths=[]", "--set", "early_patch_px=32", "--set", "early_batch=2"]


def make_picture(path: Path, size: tuple[int, int] = (48, 36), seed: int = 0) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def make_clip(path: Path, frames: int, fps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC))
    with av.open(path, "w") as clip:
        stream = clip.add_stream("libx264", fps, width=64, height=48)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, number, 1))
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))


@pytest.fixture
def folder(  # noqa: PLR0912
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What somebody who follows the documents has lying around, and small weights."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    monkeypatch.chdir(tmp_path)
    for name in ("DEBLUR_WEIGHTS_DIR", "DEBLUR_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEBLUR_WEIGHTS", str(tiny_weights))
    monkeypatch.setenv("DEBLUR_DEVICE", "cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, name in enumerate(("photo.jpg", "photo.heic", "a.jpg", "b.png", "mask.png")):
        make_picture(Path(name), seed=number)
    for name in ("sharp/1.png", "before/1.png", "after/1.png"):
        make_picture(Path(name))
    for name in ("holiday/IMG_1.jpg", "holiday/beach/IMG_2.jpg"):
        make_picture(Path(name))
    for number in range(2):
        make_picture(Path(f"photos/{number}.jpg"), (660, 640), seed=number)
    make_clip(Path("clip.mp4"), 75, 1)
    make_clip(Path("clip.mov"), 75, 1)
    make_clip(Path("other.mp4"), 75, 1)
    make_clip(Path("holiday/beach.mp4"), 3, 24)
    for name in ("fast.mp4", "walk.mp4", "street/1.mp4", "GOPRO_Large_all/train/walk.mp4"):
        make_clip(Path(name), 40, 240)
    for kind in ("blur", "blur_gamma", "sharp"):
        for part in ("train", "test"):
            for scene in ("street", "market"):
                make_picture(Path(f"GOPRO/{part}/{scene}/{kind}/000001.png"), seed=len(part))
    for name in ("NAFNet", "Restormer"):
        for scene in ("street", "market"):
            make_picture(Path(f"{name}/{scene}/000001.png"), seed=1)
    for kind in ("blur", "sharp"):
        for part in ("train", "val"):
            make_picture(Path(f"REDS/{part}/{part}_{kind}/000/00000000.png"), seed=9)
    shutil.copytree(REPOSITORY / "weights", "weights")
    for name in ("mine.safetensors", "weights/large.safetensors"):
        shutil.copy(tiny_weights, name)
    Path("runs/tuned").mkdir(parents=True)
    shutil.copy("weights/compact.safetensors", "runs/tuned/best.safetensors")
    shutil.copytree(REPOSITORY / "docs" / "pictures", "docs/pictures")
    with zipfile.ZipFile("GOPRO_L1.zip", "w") as archive:
        torch.save({"G": OrderedDict(random_parameters(1))}, "model-1.pt")
        archive.write("model-1.pt", "GOPRO_L1/models/model-1.pt")
    return tmp_path


def commands_of(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8")
    lines: list[str] = []
    for language, block in BLOCK.findall(text):
        if language == "sh":
            lines += block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def run(line: str) -> int:
    """Runs one line as it stands in a document; 0 if all is well."""
    words = shlex.split(line, comments=True)
    if words[0] == "torchrun":
        words = words[words.index("deblur" if "deblur" in words else "deblurcli") :]
    if words[1:2] == ["train"]:
        for limit in ("--steps", "--minutes"):
            if limit in words:
                del words[words.index(limit) : words.index(limit) + 2]
        words += SMALL + ([] if {"paper", "--weights"} & {*words} else SMALL_COMPACT)
    elif words[1:4] == ["weights", "export", "compact"]:
        words[3] = "mine.safetensors"  # PyTorch traces a network of that size for half a minute
    elif words[1:3] == ["data", "synth"] and "--size" in words:
        words[words.index("--size") + 1] = "256"  # of 512 px, photos would have to be large
    deblur = [sys.executable, "-m", "deblurcli"]
    if set(words) & {"<", ">", "|"}:
        command = line.replace("deblur", shlex.join(deblur), 1)
        return subprocess.run(["sh", "-c", command], check=False).returncode
    if words[1:2] == ["train"]:  # of which a process can have only one
        return subprocess.run([*deblur, *words[1:]], check=False).returncode
    return main(words[1:])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_works_in_its_order(
    document: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in commands_of(document):
        program = shlex.split(line, comments=True)[0]
        if program in NOT_RUN or line.startswith(NEEDS_THE_NETWORK + RUNS_UNTIL_STOPPED):
            continue
        if program == "python":
            assert (REPOSITORY / line.split()[1]).is_file(), line
            continue
        assert program in ("deblur", "torchrun"), line
        if set(line) & set("<|") and os.name != "posix":
            continue
        code = run(line)
        assert code == 0, f"{line}\n{capfd.readouterr().err}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_hides_from_the_test_above(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for language, block in BLOCK.findall(text):
        if language not in ("sh", "text"):
            assert not re.search(r"^(deblur|torchrun|python) ", block, re.MULTILINE), block
    outside = BLOCK.sub("", text)
    assert not re.search(r"^ {4}(deblur|torchrun|python) ", outside, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_program_works(document: Path, folder: Path) -> None:
    for language, block in BLOCK.findall(document.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(block, document.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path, slug: Callable[[str], str]) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(slug, titles), target


def test_the_package_index_shows_no_link_into_the_repository() -> None:
    shown = str(importlib.metadata.metadata("deblurcli").get_payload())
    assert shown.count("\n#") == (REPOSITORY / "README.md").read_text("utf-8").count("\n#")
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets), targets


@pytest.fixture
def slug() -> Callable[[str], str]:
    """What a heading is called in links."""

    def name(title: str) -> str:
        return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")

    return name
