"""The default command: what it writes, says and answers; and how it lives beside the others."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deblurcli import __version__
from deblurcli.cli import main
from deblurcli.deblurrer import Deblurrer
from deblurcli.io.photos import read

MakePhoto = Callable[..., Path]
Deblur = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def photo(tmp_path: Path, make_photo: MakePhoto, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_photo(Path("photo.png"))
    return Path("photo.png")


@pytest.fixture
def restore(tiny_weights: Path) -> Callable[..., int]:
    """`main` in this process, with the tiny weights."""

    def run(*words: str) -> int:
        return main([*words, "--weights", str(tiny_weights), "--precision", "fp32"])

    return run


def lines(text: str) -> list[str]:
    return text.splitlines()


# --- starting up ---------------------------------------------------------------------------

HEAVY = ("torch", "numpy", "PIL", "av", "pooch", "tqdm", "rich", "skimage")


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from deblurcli.cli import main; code = main(sys.argv[1:])\n"
        f"loaded = sorted(set({HEAVY}) & set(sys.modules))\n"
        "print('loaded:', *loaded, file=sys.stderr); sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "loaded:\n")


def test_help_shows_options_commands_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in ("--weights", "--skip-existing", "DEBLUR_DEVICE", "deblur photo.jpg", "Commands:"):
        assert word in out


def test_without_a_word_it_shows_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: deblur")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"deblur {__version__}\n"


# --- one photo -----------------------------------------------------------------------------


def test_one_photo(
    photo: Path,
    restore: Callable[..., int],
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert restore("photo.png", "-o", "sharp.png") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("deblur: wrote sharp.png in ")
    blurred = read(photo).pixels
    expected = Deblurrer.load(tiny_weights, "cpu", "fp32").restore(blurred)
    written = read(Path("sharp.png")).pixels
    np.testing.assert_array_equal(written, expected)
    assert (written != blurred).any()  # the tiny network does something


def test_options_follow_paths_and_q_is_silent(
    photo: Path, restore: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore("photo.png", "--strength", "0", "-q") == 0
    np.testing.assert_array_equal(read(Path("photo-sharp.png")).pixels, read(photo).pixels)
    assert capsys.readouterr() == ("", "")


def test_existing_output(
    photo: Path, restore: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sharp.png").write_text("precious")
    assert restore("photo.png", "-o", "sharp.png") == 2
    assert "exists already" in capsys.readouterr().err
    assert restore("photo.png", "-o", "sharp.png", "--skip-existing") == 0
    assert Path("sharp.png").read_text() == "precious"
    assert restore("photo.png", "-o", "sharp.png", "--overwrite") == 0
    assert read(Path("sharp.png")).pixels.shape == read(photo).pixels.shape
    # In place, where that was asked for.
    before = photo.read_bytes()
    assert restore("photo.png", "-o", "photo.png", "--overwrite") == 0
    assert photo.read_bytes() != before


def test_environment_variables(
    photo: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DEBLUR_WEIGHTS", str(tiny_weights))
    monkeypatch.setenv("DEBLUR_DEVICE", "abacus")
    assert main(["photo.png"]) == 2
    assert "DEBLUR_DEVICE" in capsys.readouterr().err
    monkeypatch.setenv("DEBLUR_DEVICE", "cpu")
    assert main(["photo.png"]) == 0


def test_photo_through_a_pipe(
    photo: Path,
    restore: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    assert restore("-", "-o", "-") == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    assert restore("photo.png", "-o", "sharp.png") == 0
    with Image.open(io.BytesIO(out)) as piped, Image.open("sharp.png") as written:
        assert piped.format == "PNG"
        np.testing.assert_array_equal(np.asarray(piped), np.asarray(written))
    capsysbinary.readouterr()
    assert restore("photo.png", "-o", "-", "--format", "jpg") == 0
    assert capsysbinary.readouterr().out.startswith(b"\xff\xd8")


# --- many ----------------------------------------------------------------------------------


def test_batch_goes_on_after_a_bad_file(
    photo: Path,
    make_photo: MakePhoto,
    restore: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(1, 13):
        make_photo(Path(f"in/{number}.jpg"), size=(40 + number % 3, 30), seed=number)
    make_photo(Path("in/deep/x.png"))
    Path("in/5.jpg").write_text("no photo")
    assert restore("in", "-r", "-o", "out", "--json") == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["counts"] == {"done": 12, "skipped": 0, "failed": 1}
    failed = [job for job in document["jobs"] if job["status"] == "failed"]
    assert [job["source"] for job in failed] == ["in/5.jpg"]
    assert failed[0]["error"]["reason"]
    assert len(lines(err)) == 2
    assert lines(err)[0].startswith("deblur: in/5.jpg: ")
    assert lines(err)[1].startswith("deblur: 12 done, 0 skipped, 1 failed in ")
    assert not Path("out/5.jpg").exists()
    for source in Path("in").rglob("*.*"):
        if source.name != "5.jpg":
            target = "out" / source.relative_to("in")
            assert read(target).pixels.shape == read(source).pixels.shape

    # Mended, the second run does the rest only.
    make_photo(Path("in/5.jpg"))
    kept = Path("out/7.jpg").stat().st_mtime_ns
    assert restore("in", "-r", "-o", "out", "--skip-existing", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"done": 1, "skipped": 12, "failed": 0}
    assert Path("out/7.jpg").stat().st_mtime_ns == kept
    assert not list(Path().rglob("*.part"))


def test_dry_run_lists_and_writes_nothing(
    photo: Path, make_photo: MakePhoto, capsys: pytest.CaptureFixture[str]
) -> None:
    make_photo(Path("in/a.png"))
    make_photo(Path("in/b\n.png"))
    assert main(["in", "-o", "out", "--dry-run", "--weights", "no/such/weights"]) == 0
    out = capsys.readouterr().out
    assert lines(out) == ["in/a.png -> out/a.png", r"in/b\n.png -> out/b\n.png"]
    assert main(["in", "gone.png", "-o", "out", "--dry-run", "--json"]) == 1
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["status"] for job in jobs] == ["planned", "planned", "failed"]
    assert not Path("out").exists()


def test_format_option_renames(photo: Path, restore: Callable[..., int]) -> None:
    assert restore("photo.png", "-o", "out/", "--format", "JPG") == 0
    with Image.open("out/photo.jpg") as image:
        assert image.format == "JPEG"


# --- usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strenght", "1", "photo.png"], "--strength"),
        (["photo.png", "--strength", "3"], "--strength"),
        (["photo.png", "--strength"], "--strength"),
        (["photo.png", "--device", "abacus"], "abacus"),
        (["photo.png", "--device", "cpu:1"], "cpu:1"),
        (["photo.png", "--precision", "fp8"], "fp8"),
        (["photo.png", "--tile", "-3"], "--tile"),
        (["photo.png", "--tile", "big"], "big"),
        (["photo.png", "--format", "docx"], "docx"),
        (["photo.png", "--overwrite", "--skip-existing"], "--skip-existing"),
        (["photo.png", "-o", "-", "--json"], "--json"),
        (["--json"], "PATH: missing"),
        (["photo.png", "photo.png", "-o", "photo.png"], "photo.png"),
        (["trian", "--data", "x"], "write: deblur train"),
        (["weigths"], "write: deblur weights"),
        (["--device", "cpu", "train", "--data", "x"], "write: deblur train"),
        (["train", "--no-such-option"], "deblur train --help"),
    ],
)
def test_usage_errors_are_one_line(
    photo: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 2 if "--json" in words else out == ""
    assert len(lines(err)) == 1
    assert err.startswith("deblur: ")
    assert said in err
    assert "; " in err  # says what to do


def test_values_of_options_are_no_mistyped_commands(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--weights", "gone.safetensors", "photo.png", "--offline"]) == 4
    assert capsys.readouterr().err.startswith("deblur: gone.safetensors: ")


def test_a_file_named_like_a_command(
    photo: Path, restore: Callable[..., int], make_photo: MakePhoto
) -> None:
    make_photo(photo)
    photo.rename("train")
    assert restore("./train", "-o", "a.png") == 0
    photo = Path("trains")
    Path("train").rename(photo)  # close to a command, but there
    assert restore("trains", "-o", "b.png") == 0


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("tr", "train"),
        ("train --recipe pa", "paper"),
        ("eval --metrics lp", "lpips"),
        ("eval --weights com", "compact"),
    ],
)
def test_completion_offers_commands_and_values(
    photo: Path,
    deblur_here: Deblur,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    offered: str,
) -> None:
    position = len(words.split())
    bash = {"COMP_WORDS": f"deblur {words}", "COMP_CWORD": str(position)}
    # zsh and fish are given the words as one line, fish also the last one alone.
    typed = {"_TYPER_COMPLETE_ARGS": f"deblur {words}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for shell, environment in {"bash": bash, "zsh": typed, "fish": typed}.items():
        for name, value in {**environment, "_DEBLUR_COMPLETE": f"complete_{shell}"}.items():
            monkeypatch.setenv(name, value)
        assert offered in deblur_here().stdout, shell


@pytest.mark.parametrize(
    "words", ["pho", "-o pho", "train --recipe pho", "photo.png --weights pho"]
)
def test_shells_complete_files(
    photo: Path, deblur_here: Deblur, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """They do so by themselves where nothing is offered; zsh has to be told."""
    monkeypatch.setenv("COMP_WORDS", f"deblur {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"deblur {words}")
    for shell, said in {"bash": "", "zsh": "_files"}.items():
        monkeypatch.setenv("_DEBLUR_COMPLETE", f"complete_{shell}")
        assert deblur_here().stdout.strip() == said, shell


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a shell's pipes")
def test_reader_of_the_pipe_goes_away(photo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        run = subprocess.run(
            [sys.executable, "-m", "deblurcli", "photo.png", "--dry-run"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (run.returncode, run.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
@pytest.mark.parametrize("words", ["info", "weights list --json", "--help"])
def test_a_full_disk_behind_standard_output_is_one_line(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deblurcli", *words.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "standard output: the disk is full" in done.stderr


@pytest.mark.parametrize("group", ["data", "weights"])
def test_a_group_of_commands_shows_its_help(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Commands:\n" in err


def test_a_value_is_not_taken_for_a_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["photo.png", "--strength", "inf"]) == 2
    err = capsys.readouterr().err
    assert "--strength" in err
    assert "deblur info" not in err
