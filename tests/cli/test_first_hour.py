"""What a new user meets."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from video_clips import COUNTER, ffmpeg, needs_ffmpeg

from deblurcli import __version__
from deblurcli.cli import main
from deblurcli.deblurrer import MIN_TILE_PX

MakePhoto = Callable[..., Path]
Deblur = Callable[..., "subprocess.CompletedProcess[str]"]

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photo: MakePhoto) -> Path:
    monkeypatch.chdir(tmp_path)
    make_photo(Path("photo.jpg"))
    make_photo(Path("folder/only.jpg"))
    return tmp_path


@pytest.mark.parametrize("words", [[""], ["photo.jpg", ""], ["photo.jpg", "-o", ""]])
def test_an_unset_variable_restores_nothing(
    here: Path, deblur_here: Deblur, words: list[str]
) -> None:
    done = deblur_here(*words)
    assert done.returncode == 2
    assert done.stderr == "deblur: '': an empty name; check the variable that it comes from\n"
    assert sorted(path.name for path in here.iterdir()) == ["folder", "photo.jpg"]


@posix_only
def test_a_terminal_gets_no_bytes(here: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "deblurcli", "photo.jpg", "-o", "-"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert "would fill the terminal with bytes; send it on: -o - > sharp.jpg" in done.stderr


def test_the_content_names_the_ending(here: Path, deblur_here: Deblur) -> None:
    results = {
        "s.xyz": "s-sharp.jpg",
        "photo.jpeg_large": "photo-sharp.jpg",
        "holiday.2024": "holiday.2024-sharp.jpg",
        "noending": "noending-sharp",
    }
    for name in results:
        Path(name).write_bytes(Path("photo.jpg").read_bytes())
    done = deblur_here(*results)
    assert done.returncode == 0, done.stderr
    for result in results.values():
        with Image.open(result) as image:
            assert image.format == "JPEG"
    done = deblur_here(*results, "-o", "out/", "--dry-run")
    assert done.stdout.splitlines() == [
        f"{name} -> out/{result.replace('-sharp', '')}" for name, result in results.items()
    ]


@needs_ffmpeg
def test_a_video_of_an_odd_name_is_one(here: Path, deblur_here: Deblur) -> None:
    ffmpeg("-f", "lavfi", "-i", COUNTER.replace("d=1", "d=0.2"), "-f", "avi", "clip.download")
    done = deblur_here("clip.download", "--dry-run")
    assert done.stdout.startswith("clip.download -> clip-sharp.mp4  (about ")


USAGE = [
    "",
    "photo.jpg --strength 2",
    "photo.jpg --model x",
    "photo.jpg -o photo.jpg",
    "photo.jpg -o gone/sharp.jpg",
    "photo.jpg --format docx",
    "gone.jpg -o -",
    "empty",
    "photo.jpg --weights gone.safetensors",
    "photo.jpg --device cuda:99",
    "trian --data x",
    "compare gone.jpg gone.png",
    "compare",
    "eval --data gone",
    "eval",
    "train",
    "train --data gone",
    "train --steps many",
    "weights pull gone",
    "weights verify gone.safetensors",
    "weights",
    "data frames gone.mp4 -o pairs",
    "info --nonsense",
]


@pytest.mark.parametrize("words", USAGE)
def test_json_is_always_one_document(
    here: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    code = main([*words.split(), "--json"])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert code != 0
    if "exit_code" in document:  # no document of the command's own
        assert document["exit_code"] == code
        assert document["version"] == __version__
        assert set(document["error"]) == {"subject", "reason", "remedy"}
        assert document["error"]["reason"] in err


def test_json_of_the_real_command(here: Path, deblur: Deblur) -> None:
    done = deblur("photo.jpg", "--strength", "much", "--json")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 2
    # After -- it is a file's name.
    assert deblur("--", "--json").stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("photo.jpg --strength 70x", 2, "'--strength': '70x' is not a number"),
        ("photo.jpg --strength 120%", 2, "'--strength': 120 is not at least 0 and at most 100"),
        ("photo.jpg --start 5:xx", 2, "'--start': '5:xx' is not a time"),
        ("photo.jpg --shard 3/2", 2, "'--shard': '3/2' is no part"),
        ("photo.jpg --crf high", 2, "'--crf': 'high' is not a whole number"),
        ("photo.jpg --workers 0", 2, "'--workers': 0 is not at least 1"),
        ("photo.jpg --ensemble 3", 2, "'--ensemble': '3' is not one of '1', '2', '4', '8'"),
        ("score *.heic", 1, "*.heic: no file matches this pattern"),
        ("compare https://example.org/a.jpg photo.jpg", 1, "https://example.org/a.jpg: an address"),
        ("watch folder -o a.jpg", 2, "a.jpg: is no folder for results"),
        ("watch folder -o photo.jpg", 2, "photo.jpg: is no folder for results"),
        ("watch folder -o folder/../folder", 2, "is no folder for results"),
        ("photo.jpg --tile 10", 2, f"10 is less than {MIN_TILE_PX}, the smallest tile"),
        ("photo.jpg --model x", 2, "no such option: --model; see"),
        ("photo.jpg --strenght 1", 2, "do you mean --strength?"),
        ("folder -o res.jpg", 2, "res.jpg: names one file, but folder is a folder"),
        ("*.png", 1, "*.png: no file matches this pattern"),
        ("https://example.org/a.jpg", 1, "https://example.org/a.jpg: an address, not a file"),
        ("photo.jpg -o out.mp4", 2, ".mp4 is no format of photos"),
        ("clip.mp4 -o out.gif", 2, ".gif is no format of videos"),
        ("clip.mp4 -o out", 2, "no ending is no format of videos"),
        ("help trian", 2, "for the command 'train', write: deblur train"),
        ("help nonsense", 2, "nonsense: no such command; see 'deblur --help'"),
        ("x train --data y", 2, "for the command 'train', write: deblur train"),
    ],
)
def test_what_goes_wrong_is_said_in_our_words(
    here: Path, words: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("clip.mp4").write_bytes(b"")
    assert main(words.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert "Input should" not in err
    assert "Value error" not in err


def test_strength_in_percent(here: Path, tiny_weights: Path) -> None:
    for target, strength in (("a.png", "70%"), ("b.png", "0.7")):
        words = ["photo.jpg", "-o", target, "--strength", strength, "--weights", str(tiny_weights)]
        assert main(words) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


COMMANDS = ["", "train", "eval", "compare", "info", "data", "data frames", "data synth", "weights"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [40, 80, 110])
def test_help_is_clean_and_as_wide_as_the_terminal(
    command: str,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    longest = max(map(len, out.splitlines()))
    assert longest <= columns
    if columns >= 80:
        assert not re.search(r"\.\.\.$", out.partition("Commands:")[2].partition("\n\n")[0], re.M)
    for leak in ("<list", "x>=", "<=x", "<int", "<float", "<str", "<path", "...]..."):
        assert leak not in out
    assert not re.search(r"[A-Z] (str|path)\b", out)
    if not command:
        assert columns - 12 < longest
        headings = [line for line in out.splitlines() if line and line[0].isalpha()]
        assert {"Input:", "Output:", "Video:", "Network:", "Run:", "Commands:"} <= set(headings)


@pytest.mark.parametrize(("words", "same_as"), [("help", "--help"), ("help train", "train --help")])
def test_help_as_a_word(words: str, same_as: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == main(same_as.split()) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_the_manual_page(capsys: pytest.CaptureFixture[str]) -> None:
    """It holds every command and option, and no word of it is lost to roff."""
    assert main(["help", "--man"]) == 0
    page = capsys.readouterr().out
    for word in ("SYNOPSIS", "DEBLUR TRAIN", "DEBLUR WEIGHTS PULL", "EXIT STATUS", "skip\\-sharp"):
        assert word in page
    if shutil.which("groff"):
        shown = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww"],
            input=page,
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == ""
        assert "deblur weights pull" in shown.stdout


def test_version_as_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"deblur {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("version", f"deblur {__version__}\n"),
        ("help", "Usage: deblur [OPTIONS]"),
        ("help train", "Usage: deblur train"),
        ("help --man", ".TH DEBLUR"),
        ("eval --help", "Usage: deblur eval"),
    ],
)
def test_text_as_json(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"].startswith(said)
    assert (document["version"], document["exit_code"]) == (__version__, 0)


def test_the_remedy_in_json_names_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--nonsense", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["remedy"] == "see 'deblur train --help'"
    assert err == "deblur: no such option: --nonsense; see 'deblur train --help'\n"


def test_a_page_in_a_missing_folder_is_refused_by_its_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "photo.jpg", "photo.jpg", "-o", "gone/x/page.html"]) == 1
    said = "deblur: gone/x/page.html: its folder does not exist; make it: mkdir -p gone/x\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("--device c", ["cpu", "cuda"]),
        ("--precision b", ["bf16"]),
        ("--format p", ["png"]),
        ("--weights comp", ["compact"]),
        ("--engine ", ["local", "ray"]),
        ("-o fol", []),  # then shells offer files
        ("fol", []),
        ("train --recipe pa", ["paper"]),
        ("weights path comp", ["compact"]),
        ("weights pull nafnet-6", ["nafnet-64", "nafnet-64-reds"]),
    ],
)
def test_completion_offers_values(
    here: Path,
    deblur_here: Deblur,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    offered: list[str],
) -> None:
    monkeypatch.setenv("_DEBLUR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"deblur {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    assert deblur_here().stdout.split() == offered


def in_a_terminal(columns: int, *words: str) -> list[str]:
    """What Python shows on a terminal of that width, each time that it goes back in the line."""
    fcntl, termios, struct = map(pytest.importorskip, ("fcntl", "termios", "struct"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([sys.executable, *words], stderr=theirs, stdout=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # what Linux says when the other side is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode().replace("\n", "\r").split("\r")


@posix_only
def test_bars_keep_to_the_terminal(here: Path, make_photo: MakePhoto, tiny_weights: Path) -> None:
    """No line on the terminal is longer than it is wide, so that none is left behind."""
    for n in range(4):
        make_photo(Path(f"in/a very long name of a photo {n}.png"), size=(320, 240))
    words = ["in", "-o", "out", "--weights", str(tiny_weights), "--device", "cpu"]
    bars = [line for line in in_a_terminal(30, "-m", "deblurcli", *words) if "%" in line]
    assert bars
    assert max(map(len, bars)) <= 30


@posix_only
def test_a_large_photo_moves_the_bar_tile_by_tile(
    here: Path, make_photo: MakePhoto, tiny_weights: Path
) -> None:
    make_photo(Path("large.png"), (600, 200))
    words = ["large.png", "--tile", "128", "--ensemble", "8", "--weights", str(tiny_weights)]
    bars = [line for line in in_a_terminal(100, "-m", "deblurcli", *words) if "%" in line]
    assert any(f"0.{tenth}/1" in bar for bar in bars for tenth in range(1, 10)), bars


@posix_only
@pytest.mark.parametrize("columns", [60, 30, 100])
def test_bars_of_clips_of_unknown_length(columns: int) -> None:
    code = (
        "from deblurcli.cli import console\n"
        "with console.progress(None, 'frame', description='a long name of a clip' * 5) as bar:\n"
        "    for _ in range(1234): bar.update()\n"
        "    bar.refresh()"
    )
    bars = [line for line in in_a_terminal(columns, "-c", code) if "frame" in line]
    assert any("1234frame" in line for line in bars), bars
    assert max(map(len, bars)) <= columns
    assert any("a long" in line for line in bars) == (columns > 50)


@pytest.mark.parametrize(
    "words",
    [
        "train --steps 1 --data ''",
        "eval --data=",
        "data synth '' -o pairs",
        "data frames '' -o pairs",
        "compare '' .",
        "watch . -o ''",
        "photo.jpg --mask ''",
    ],
)
def test_no_command_takes_an_unset_variable_for_the_current_folder(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(words)) == 2
    said = capsys.readouterr().err
    assert said == "deblur: '': an empty name; check the variable that it comes from\n"
    assert not list(tmp_path.iterdir())
