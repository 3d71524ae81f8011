"""Whole runs of ``deblur train``: several processes, ends from outside, going on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as pictures

from deblurcli.cli import main
from deblurcli.config import RunConfig
from deblurcli.weights.files import load_weights

pytest.importorskip("accelerate", reason="needs the extra 'train'")

SMALL = [
    *("--set", "channels=[8,8,8]", "--set", "patch_px=32", "--set", "early_share=0"),
    *("--set", "batch=2", "--device", "cpu", "--track", "none"),
    *("--precision", "fp32"),  # one process can have only one, and other tests have this one
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pairs of a kind, two of each of two scenes, in GOPRO's layout."""
    folder = tmp_path_factory.mktemp("data") / "train"
    for name in ("astronaut", "coffee"):
        sharp = getattr(pictures, name)()[:200, :200]
        for number in (1, 2):
            copies = [np.roll(sharp, number * k, axis=1) for k in range(-2, 3)]
            for kind, image in (("blur", np.mean(copies, axis=0)), ("sharp", sharp)):
                path = folder / name / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.astype(np.uint8)).save(path)
    return folder.parent


def train(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "deblurcli", "train", *map(str, words)]


def read_metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_processes_equal_one(scenes: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(pictures, name)()).save(photos / f"{name}.png")
    words = ["--data", scenes, "--data", photos, "--steps", "3", "--validate-every", "2", *SMALL]
    words += ["--set", "channels=[16,16]", "--set", "scales=2", "--set", "motion.path_px=8"]
    two, one = tmp_path / "two", tmp_path / "one"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = train(*words, "-o", two)
    done = subprocess.run(
        [command[0], *launcher, *command[1:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("4 pairs (GOPRO linear)") == 1  # only the first process speaks
    assert main(["train", *map(str, words), "-o", str(one), "-q"]) == 0
    rows = [read_metrics(run) for run in (two, one)]
    assert [row["step"] for row in rows[0]] == ["0", "2", "3"]
    for shared, alone in zip(*rows, strict=True):
        score = float(alone["psnr_db:GOPRO linear"])
        assert float(shared["psnr_db:GOPRO linear"]) == pytest.approx(score, abs=0.01)
    states = [torch.load(run / "last.pt", weights_only=True)["generator"] for run in (two, one)]
    shared, alone = (torch.cat([p.flatten() for p in state.values()]) for state in states)
    # The first steps are of the size of the learning rate whatever the gradient's: compare with
    # that, not with the parameters.
    assert (shared - alone).abs().mean() < 1e-2 * float(rows[1][-1]["learning_rate"])


def test_signals_save_and_resume_needs_nothing_else(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def interrupt(number: signal.Signals, step: int, *words: str | Path) -> tuple[str, int]:
        """What was said until a process was stopped after this step, and how far it came."""
        command = train(*words, "-o", run, "-v")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert process.stderr is not None
        seen = ""
        while f"step {step}," not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        process.send_signal(number)
        rest = process.communicate(timeout=120)[1]
        assert process.returncode == 130, rest
        assert "interrupted" in rest and "--resume" in rest and "Traceback" not in rest
        done = load_weights(run / "last.safetensors")[1].recipe["steps"]
        assert isinstance(done, int) and done >= step
        return seen, done

    seen, done = interrupt(signal.SIGTERM, 20, "--data", scenes, "--workers", "1", *SMALL)
    assert "2 of them held out to validate on" in seen
    assert "trains until Ctrl-C" in seen
    config = RunConfig.load(run / "config.json")
    assert (config.recipe.channels, config.workers) == ((8, 8, 8), 1)
    _, done = interrupt(signal.SIGINT, 20 * (done // 20 + 1), "--resume")
    assert main(["train", "--resume", "-o", str(run), "--steps", f"{done + 2}", "-q"]) == 0
    assert load_weights(run / "last.safetensors")[1].recipe["steps"] == done + 2
    assert (run / "curves.png").exists()


def test_other_settings_are_refused_or_named(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "--data", str(scenes), "--steps", "2", "-o", run, *SMALL]) == 0
    resume = ["train", "--resume", "-o", run]
    capsys.readouterr()
    for words, name in (
        (["--set", "batch=4"], "batch"),
        (["--set", "loss=mse"], "loss"),
        (["--seed", "3"], "seed"),
        (["--data", str(scenes / "train" / "coffee")], "data"),
        (["--val", str(scenes)], "validation"),  # would train on what was held out
        (["--validate-limit", "1"], "validate_limit"),
        (["--recipe", "paper"], "name"),
        (["--weights", "default"], "weights"),
    ):
        assert main([*resume, *words]) == 2
        said = capsys.readouterr().err
        assert f"--resume: {name}: the run was begun with" in said
        assert "(" not in said and "None" not in said
    assert main([*resume, "--steps", "4", "--set", "learning_rate=1e-4", "--json"]) == 0
    printed = capsys.readouterr()
    assert "goes on with learning_rate 0.0001 instead of 0.002, steps 4 instead of 2" in printed.err
    assert json.loads(printed.out)["step"] == 4
    assert RunConfig.load(Path(run) / "config.json").steps == 4
    assert "nothing is left to train" not in printed.err
    assert main(resume) == 0
    assert "nothing is left to train: the run has 4 steps" in capsys.readouterr().err


def test_what_tracks_a_run_is_told_each_score_once(scenes: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    words = ["--data", str(scenes), "--steps", "4", "--validate-every", "2", "-o", str(run)]
    assert main(["train", *words, *SMALL, "--track", "tensorboard"]) == 0
    logged = reader.EventAccumulator(str(run / "tensorboard"))
    logged.Reload()
    assert logged.Tags()["images"] == ["samples"]
    assert [event.step for event in logged.Scalars("psnr_db/GOPRO linear")] == [0, 2, 4]
    assert [event.step for event in logged.Scalars("loss")] == [2, 4]


def test_wandb_that_is_not_there_is_said(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    words = ["--data", str(scenes), "--steps", "1", "-o", str(tmp_path / "run"), *SMALL]
    assert main(["train", *words, "--track", "wandb"]) == 2
    assert "--track wandb: needs the package wandb; pip install wandb" in capsys.readouterr().err


def test_snapshots_are_kept(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--data", str(scenes), "--steps", "5", "-o", str(run), "--snapshot-every", "2"]
    assert main(["train", *words, *SMALL]) == 0
    names = [path.name for path in sorted((run / "snapshots").iterdir())]
    assert names == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert (run / "samples.png").exists()


def test_too_little_memory_is_one_line(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    from deblurcli.training import trainer

    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer, "train_step", fail)
    words = ["--data", str(scenes), "--steps", "2", "-o", str(tmp_path / "run"), *SMALL]
    assert main(["train", *words]) == 5
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("deblur: cpu: out of memory with 2 patches of 32 px; use --set")


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated")  # in spandrel's NAFNet
def test_nafnet_trains_from_nothing_and_restores(
    scenes: Path, tmp_path: Path, deblur_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    if find_spec("spandrel") is None:
        pytest.skip("needs the extra 'zoo'")
    words = ["train", "--data", scenes, *SMALL, "--set", "network=nafnet", "--steps", "2"]
    wide = deblur_here(*words, "-o", tmp_path / "wide")
    assert wide.returncode == 2
    assert "NAFNet takes channels=[N]" in wide.stderr  # SMALL has three
    words += ["--set", "channels=[8]", "--set", "encoder_blocks=[1,2,1]"]
    trained = deblur_here(*words, "-o", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    weights = tmp_path / "run" / "last.safetensors"
    network, card = load_weights(weights)
    assert (network.config.body, card.recipe["network"]) == ("NAFNet", "nafnet")
    photo = scenes / "train" / "coffee" / "blur" / "1.png"
    restored = deblur_here(photo, "--weights", weights, "-o", tmp_path / "sharp.png")
    assert restored.returncode == 0, restored.stderr
    assert not np.array_equal(Image.open(photo), Image.open(tmp_path / "sharp.png"))
    # A checkpoint goes on with its network, and weights are a start.
    assert deblur_here("train", "--resume", "--steps", "3", "-o", tmp_path / "run").returncode == 0
    tuned = ["train", "--data", scenes, *SMALL[2:], "--steps", "1", "--weights", weights]
    assert deblur_here(*tuned, "-o", tmp_path / "tuned").returncode == 0
