"""Bad input, full disks and interruptions: each time one line that says what and why, the right
exit code, nothing lost or half-written.

Where signals, streams and permissions matter it is the real ``deblur`` in its own process.
"""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deblurcli.batch.plan import Job, Plan
from deblurcli.batch.run import Outcome
from deblurcli.cli import main
from deblurcli.cli.run_report import RunReport
from deblurcli.deblurrer import Deblurrer

MakePhoto = Callable[..., Path]
Deblur = Callable[..., "subprocess.CompletedProcess[str]"]

PHOTOS = 24  # of a run that is interrupted when four are done

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and permissions")


def write_bomb(path: Path) -> None:
    """A PNG of 100 bytes that claims 10 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_photo: MakePhoto) -> Path:
    """The current folder, with one photo and every kind of bad one."""
    monkeypatch.chdir(tmp_path)
    make_photo(Path("good.jpg"), size=(160, 120))
    whole = Path("good.jpg").read_bytes()
    Path("truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    Path("stub.jpg").write_bytes(whole[:100])
    Path("zero.jpg").touch()
    Path("text.jpg").write_text("Dear photo,\n")
    Path("noise.png").write_bytes(np.random.default_rng(1).bytes(5000))
    write_bomb(Path("bomb.png"))
    Path("empty").mkdir()
    Path("empty/notes.txt").touch()
    return tmp_path


def the_line(run: subprocess.CompletedProcess[str]) -> str:
    """The only line on stderr, which has the form of all our errors."""
    (line,) = run.stderr.splitlines()
    assert line.startswith("deblur: ")
    assert "; " in line
    assert run.stdout == ""
    return line


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


BAD = ("truncated.jpg", "stub.jpg", "zero.jpg", "text.jpg", "noise.png", "bomb.png")


@pytest.mark.parametrize(
    ("words", "exit_code", "subject"),
    [
        *((f"{name} -o sharp.jpg", 1, name) for name in BAD),
        ("gone.jpg", 1, "gone.jpg"),
        ("empty -r", 3, "empty"),
        ("good.jpg -o gone/sharp.jpg", 1, "gone/sharp.jpg"),
        ("good.jpg -o good.jpg", 2, "good.jpg"),
        ("good.jpg -o text.jpg", 2, "text.jpg"),
        ("good.jpg -o empty/notes.txt/sharp.jpg", 1, "empty/notes.txt/sharp.jpg"),
        ("good.jpg --weights gone.safetensors --offline", 4, "gone.safetensors"),
        ("good.jpg --device cuda:99", 5, "cuda:99"),
    ],
)
def test_one_line_and_the_right_code(
    here: Path, deblur_here: Deblur, words: str, exit_code: int, subject: str
) -> None:
    before = files(here)
    run = deblur_here(*words.split())
    assert the_line(run).startswith(f"deblur: {subject}: ")
    assert run.returncode == exit_code
    assert files(here) == before


def test_a_photo_among_bad_ones_is_restored(here: Path, deblur: Deblur) -> None:
    before = files(here)
    run = deblur(".", "-o", "out")
    assert run.returncode == 1
    *failures, summary = run.stderr.splitlines()
    assert sorted(line.split(": ")[1] for line in failures) == sorted(BAD)
    assert summary.startswith(f"deblur: 1 done, 0 skipped, {len(BAD)} failed")
    with Image.open("out/good.jpg") as image:
        assert image.size == (160, 120)
    new = {name for name in files(here) if name not in before}
    assert new == {"out/good.jpg"}


def test_weights_whose_results_are_no_picture(
    here: Path, deblur_here: Deblur, tiny_weights: Path
) -> None:
    """Finite weights, times 50: black photos, once, in place, with exit code 0."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(tiny_weights, "pt") as file:
        tensors = {name: file.get_tensor(name) * 50 for name in file.keys()}  # noqa: SIM118
        save_file(tensors, "wild.safetensors", file.metadata())
    before = files(here)
    run = deblur_here("good.jpg", "--overwrite", "-o", "good.jpg", "--weights", "wild.safetensors")
    assert "wild.safetensors: its results are no picture" in the_line(run)
    assert run.returncode == 4
    assert files(here) == before


@pytest.mark.parametrize("content", [b"no photo", b""])
def test_bad_photo_through_a_pipe(
    here: Path, deblur_here: Deblur, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    run = deblur_here("-", "-o", "-")
    assert the_line(run).startswith("deblur: standard input: ")
    assert run.returncode == 1


NAMES = (
    "with space.png",
    'it\'s "quoted".png',
    "new\nline.png",
    "tab\tand\x1b[31mred.png",
    "žluťoučký 写真 📷.png",
    "-leading-dash.png",
    "%s {0} $HOME `x`.png",
    "n" * 240 + ".png",
)


@posix_only
def test_any_name_works(
    here: Path, deblur: Deblur, deblur_here: Deblur, make_photo: MakePhoto
) -> None:
    names = [*NAMES, os.fsdecode(b"latin-1 caf\xe9.png")]
    for name in names:
        make_photo(Path("in", name))
    run = deblur("-o", "out", "--", *(Path("in", name) for name in names))
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr.startswith(f"deblur: {len(names)} done")
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(names)

    # The same names in errors: one printable line each.
    for name in names:
        Path("in", name).write_text("no photo")
    run = deblur_here("in", "-o", "out2", "--json")
    lines = run.stderr.splitlines()
    assert len(lines) == len(names) + 1
    assert all(line.isprintable() for line in lines)
    assert run.returncode == 1
    assert not Path("out2").exists()


@pytest.fixture(scope="session")
def powerless() -> list[str]:
    """What to put before a command so that permission bits hold for it, even for root."""
    if os.geteuid() != 0:
        return []
    powers = "-dac_override,-dac_read_search"
    prefix = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root may read everything, and setpriv can't take that power away here")
    return prefix


@pytest.fixture
def locked(here: Path) -> Iterator[Path]:
    """A folder in which nothing can be made, with a file and a folder that can't be read."""
    Path("secret.jpg").write_bytes(Path("good.jpg").read_bytes())
    Path("locked").mkdir()
    Path("readable").mkdir()
    modes = {Path("secret.jpg"): 0, Path("locked"): 0, Path("readable"): 0o555, here: 0o555}
    for path, mode in modes.items():
        path.chmod(mode)
    yield here
    for path in reversed(modes):
        path.chmod(0o755)


@posix_only
@pytest.mark.parametrize(
    ("words", "subject"),
    [
        ("secret.jpg -o empty/x.jpg", "secret.jpg"),
        ("locked/a.jpg", "locked/a.jpg"),
        ("locked", "locked"),
        ("good.jpg", "good-sharp.jpg"),
        ("good.jpg -o readable/x.jpg", "readable/x.jpg"),
        ("good.jpg -o readable/new/", "readable/new/good.jpg"),
    ],
)
def test_no_permission(
    locked: Path, powerless: list[str], deblur: Deblur, words: str, subject: str
) -> None:
    run = deblur(*words.split(), prefix=powerless)
    line = the_line(run)
    assert line.startswith(f"deblur: {subject}: ")
    assert "permission" in line
    assert run.returncode == 1
    assert not list(locked.rglob("*.part"))


def test_full_disk(here: Path, deblur_here: Deblur, small_disk: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("in.png")
    (small_disk / "old.png").write_bytes(Path("good.jpg").read_bytes())
    before = files(small_disk)
    target = small_disk / "old.png"
    run = deblur_here("in.png", "-o", target, "--overwrite")
    assert the_line(run).startswith(f"deblur: {target}: the disk is full")
    assert run.returncode == 1
    assert files(small_disk) == before


def test_full_disk_stops_the_batch(here: Path, deblur_here: Deblur, small_disk: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Path("many").mkdir()
    for number in range(6):
        Image.fromarray(pixels).save(f"many/{number}.png")
    run = deblur_here("many", "-o", small_disk / "out")
    full = [line for line in run.stderr.splitlines() if "the disk is full" in line]
    assert len(full) == 1
    assert run.returncode == 1
    assert not list(small_disk.rglob("*.part"))


def test_a_run_skips_what_another_wrote_meanwhile(
    here: Path, deblur_here: Deblur, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an empty file is not done."""
    Path("many").mkdir()
    Path("out").mkdir()
    for number in range(4):
        Path(f"many/{number}.jpg").write_bytes(Path("good.jpg").read_bytes())
    Path("out/3.jpg").touch()
    load = Deblurrer.load

    def load_while_another_writes(*words: Any, **options: Any) -> Deblurrer:
        Path("out/1.jpg").write_bytes(b"of the other")
        return load(*words, **options)

    monkeypatch.setattr(Deblurrer, "load", load_while_another_writes)
    run = deblur_here("many", "-o", "out", "--skip-existing")
    assert (run.returncode, run.stderr[:31]) == (0, "deblur: 3 done, 1 skipped, 0 fa")
    assert Path("out/1.jpg").read_bytes() == b"of the other"
    assert all(Path(f"out/{number}.jpg").stat().st_size > 500 for number in (0, 2, 3))


@posix_only
def test_closed_streams(here: Path, deblur: Deblur) -> None:
    """Files must not take their places."""
    close_all = 'exec "$@" >&- 2>&- <&-'
    run = deblur("good.jpg", "-o", "sharp.jpg", prefix=["sh", "-c", close_all, "sh"])
    assert run.returncode == 0
    with Image.open("sharp.jpg") as image:
        image.load()
    for close_one in ("2>&-", "<&-"):
        run = deblur("weights", "path", prefix=["sh", "-c", f'exec "$@" {close_one}', "sh"])
        assert (run.returncode, run.stderr) == (0, "")


def test_dev_stdout_is_standard_output(
    here: Path, tiny_weights: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["good.jpg", "-o", "/dev/stdout", "--weights", str(tiny_weights)]) == 0
    assert capsysbinary.readouterr().out.startswith(b"\xff\xd8")


@posix_only
def test_a_deleted_working_folder(here: Path, deblur: Deblur) -> None:
    move = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    run = deblur("good.jpg", prefix=["sh", "-c", move, "sh"])
    assert the_line(run) == "deblur: current folder: it was deleted; change to one that is there"
    assert run.returncode == 2


@pytest.fixture
def halfway(
    here: Path, make_photo: MakePhoto, tiny_weights: Path
) -> Callable[[int], subprocess.CompletedProcess[str]]:
    """Sends a signal to a run over a folder when its first four results are there."""

    def run(signal_number: int) -> subprocess.CompletedProcess[str]:
        photo = make_photo(Path("in/0.png"), size=(320, 240)).read_bytes()
        for number in range(PHOTOS):
            Path(f"in/{number}.png").write_bytes(photo)
        command = [sys.executable, "-m", "deblurcli", "in", "-o", "out"]
        process = subprocess.Popen(
            [*command, "--weights", str(tiny_weights)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        # Several threads write, so that 3.png may be there before 2.png is.
        while len(list(Path("out").glob("*.png"))) < 4 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal_number)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


def check_complete(folder: Path) -> int:
    """How many results there are; every one of them whole."""
    results = [path for path in folder.iterdir() if path.suffix == ".png"]
    for path in results:
        with Image.open(path) as image:
            image.load()
            assert image.size == (320, 240)
    return len(results)


@posix_only
@pytest.mark.parametrize(
    ("signal_number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
    ids=["Ctrl-C", "kill", "closed terminal", "kill -9"],
)
def test_interrupted_run(
    halfway: Callable[[int], subprocess.CompletedProcess[str]],
    deblur_here: Deblur,
    signal_number: int,
    exit_code: int,
) -> None:
    run = halfway(signal_number)
    assert run.returncode == exit_code
    out = Path("out")
    done = check_complete(out)
    assert 4 <= done < PHOTOS
    if signal_number != signal.SIGKILL:
        summary, line = run.stderr.splitlines()
        assert line.startswith("deblur: interrupted; ")
        assert summary.startswith("deblur: ")
    if signal_number != signal.SIGKILL:  # against that nothing can be done
        assert not list(out.glob("*.part"))
    else:
        resumed = deblur_here("in", "-o", "out", "--skip-existing")
        assert resumed.returncode == 0
        assert check_complete(out) == PHOTOS


def test_an_interrupted_run_of_several_tells_no_time_for_the_one_that_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [Job(Path(f"{n}.png"), Path(f"out/{n}.png")) for n in "ab"]
    with pytest.raises(KeyboardInterrupt), RunReport(Plan(jobs=jobs)) as report:
        report.add(Outcome(jobs[0], "done"))
        raise KeyboardInterrupt
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("deblur: 1 done, 0 skipped, 0 failed in ")


@posix_only
@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN], ids=["terminal", "nohup"])
def test_a_closed_terminal_ends_a_run_as_kill_does(before: signal.Handlers) -> None:
    found = signal.signal(signal.SIGHUP, before)
    try:
        assert main(["--version"]) == 0
        ends = signal.getsignal(signal.SIGHUP)
        assert ends is (before if before is signal.SIG_IGN else signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, found)


@posix_only
def test_ctrl_c_while_waiting_for_a_pipe(here: Path) -> None:
    command = [sys.executable, "-m", "deblurcli", "-", "-o", "sharp.png"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(bytes(300_000))  # more than the pipe holds: deblur is reading now
        process.stdin.flush()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read().decode()
        assert process.wait(timeout=30) == 130
    assert err.splitlines()[-1].startswith("deblur: interrupted")
    assert not Path("sharp.png").exists()


INTERRUPTED_EARLY = """
import sys
class Keyboard:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Keyboard())
import deblurcli.__main__
"""


def test_ctrl_c_while_python_loads() -> None:
    command = [sys.executable, "-c", INTERRUPTED_EARLY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
