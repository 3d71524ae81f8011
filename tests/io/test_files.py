"""Atomic writing: nothing lost, nothing half-written."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import threading
from pathlib import Path

import pytest

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.files import atomic_output

posix_only = pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
not_root = pytest.mark.skipif(
    os.name == "posix" and os.geteuid() == 0, reason="nothing is forbidden to root"
)


def write(target: Path, text: str = "new", overwrite: bool = False) -> None:
    with atomic_output(target, overwrite=overwrite) as part:
        part.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "name",
    ["a.txt", "two words.txt", "quo'te\".txt", "new\nline.txt", "ünïcødé-写真.txt", "x" * 255],
)
def test_writes_only_the_target(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "new"


def test_nothing_is_there_under_the_final_name_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic_output(target, overwrite=False) as part:
        part.write_text("half")
        assert not target.exists()
        assert part.parent == target.parent
        assert part.suffix == ".part"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, SystemExit, MemoryError])
def test_failure_leaves_all_as_it_was(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_output(target, overwrite=True) as part:
            part.write_text("half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert names(tmp_path) == ["a.txt"]
    assert target.read_text() == "old"


def test_existing_file_is_refused_or_replaced_as_asked(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(UsageError, match="exists already"):
        write(target)
    assert target.read_text() == "old"
    write(target, overwrite=True)
    assert target.read_text() == "new"


def test_file_that_appears_meanwhile_is_not_lost(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def late() -> None:
        with atomic_output(target, overwrite=False) as part:
            part.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(UsageError, match="exists already"):
        late()
    assert target.read_text() == "theirs"
    assert names(tmp_path) == ["a.txt"]


def test_without_hard_links_it_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "a.txt")
    assert names(tmp_path) == ["a.txt"]
    with pytest.raises(UsageError, match="exists already"):
        write(tmp_path / "a.txt")


@posix_only
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_mode_is_that_of_a_normal_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_output(tmp_path / "a.txt", overwrite=False) as part:
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))  # as some libraries do
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask


@posix_only
@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes of Linux")
def test_in_place_the_acl_and_attributes_stay(tmp_path: Path) -> None:
    entries = [(1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1)]
    entries.append((32, 0, 2**32 - 1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    target = tmp_path / "a.txt"
    target.write_text("old")
    attributes = {"user.rating": b"5", "system.posix_acl_access": acl}
    try:
        for name, value in attributes.items():
            os.setxattr(target, name, value)
    except OSError as error:
        pytest.skip(f"no ACLs in this file system ({error})")
    with atomic_output(target, overwrite=True) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert {name: os.getxattr(target, name) for name in attributes} == attributes


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_in_place_the_mode_stays(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(mode)
    os.utime(target, (1, 1))
    owner = target.stat().st_uid
    with atomic_output(target, overwrite=True) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.stat().st_uid == owner
    assert target.stat().st_mtime > 1  # backups have to notice


def test_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced = tmp_path / "a", []
    real_sync = os.fsync

    def sync(handle: int) -> None:
        synced.append((os.fstat(handle).st_size, target.exists()))
        real_sync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with atomic_output(target, overwrite=False) as part:
        part.write_text("12345")
    assert synced[0] == (5, False)


def test_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with pytest.raises(UsageError, match="exists already"):
        write(link)
    write(link, overwrite=True)
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert names(tmp_path / "folder") == ["real.txt"]


@posix_only
def test_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(UsageError, match="exists already"):
        write(link)


@posix_only
def test_device_is_written_to_and_stays_a_device() -> None:
    write(Path("/dev/null"), overwrite=True)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@posix_only
def test_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert got == ["new"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DeblurError, match=r"folder does not exist; make it: mkdir -p '.*my folder'"
    ):
        write(tmp_path / "my folder" / "a.txt")


def test_missing_folder_is_told_before_the_work(tmp_path: Path) -> None:
    worked = []
    with pytest.raises(DeblurError), atomic_output(tmp_path / "no" / "a", overwrite=False):
        worked.append(1)
    assert not worked


def test_folder_as_target(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        write(tmp_path, overwrite=True)


def test_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(DeblurError, match="too long"):
        write(tmp_path / ("x" * 300))


@not_root
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DeblurError, match="no permission"):
            write(tmp_path / "a.txt")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_disk_noticed_on_closing(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def fill() -> None:
        with atomic_output(target, overwrite=False) as part:
            part.symlink_to("/dev/full")
            with part.open("wb") as file:
                file.write(b"x")  # fits the buffer: only closing notices

    with pytest.raises(DeblurError, match="disk is full"):
        fill()
    assert names(tmp_path) == []


def test_error_about_another_file_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        atomic_output(tmp_path / "a.txt", overwrite=False),
    ):
        (tmp_path / "missing input.txt").read_text()
    assert names(tmp_path) == []


def test_threads_do_not_share_part_files(tmp_path: Path) -> None:
    with (
        atomic_output(tmp_path / "a.txt", overwrite=True) as one,
        atomic_output(tmp_path / "a.txt", overwrite=True) as two,
    ):
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert names(tmp_path) == ["a.txt"]
