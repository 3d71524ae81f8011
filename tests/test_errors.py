"""What the named errors say, for each thing that a system can object to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from deblurcli.errors import (
    DeblurError,
    WeightsError,
    already_exists,
    cannot_read,
    cannot_write,
    not_installed,
    sizes_differ,
)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "a.jpg: no permission to read it; change it: chmod u+r"),
        (errno.ENOENT, "a.jpg: no such file or folder; check the name"),
        (errno.ENOTDIR, "a.jpg: no such file or folder; check the name"),
        (errno.EISDIR, "a.jpg: is a folder, not a file; give the files in it"),
        (errno.ENAMETOOLONG, "a.jpg: the name is too long; check the name"),
        (errno.EIO, f"a.jpg: can't be read ({os.strerror(errno.EIO)}); check the file"),
    ],
)
def test_cannot_read(number: int, said: str) -> None:
    assert str(cannot_read("a.jpg", _os_error(number))) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "no permission to write there; give another -o"),
        (errno.EACCES, "no permission to write there; give another -o"),
        (errno.ENOSPC, "the disk is full; free some space or give another -o"),
        (errno.EDQUOT, "the disk is full; free some space or give another -o"),
        (errno.EISDIR, "a folder and a file are mixed up; give another -o"),
        (errno.EIO, f"can't be written ({os.strerror(errno.EIO)}); give another -o"),
    ],
)
def test_cannot_write(number: int, said: str, tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    assert str(cannot_write(target, _os_error(number))) == f"{target}: {said}"


def test_cannot_write_into_a_missing_folder(tmp_path: Path) -> None:
    error = cannot_write(tmp_path / "a b" / "c.jpg", _os_error(errno.ENOENT))
    assert error.reason == "its folder does not exist"
    assert error.remedy == f"make it: mkdir -p '{tmp_path / 'a b'}'"


def test_class_and_remedy_can_be_chosen(tmp_path: Path) -> None:
    error = cannot_write(
        tmp_path / "w", _os_error(errno.EACCES), "set DEBLUR_WEIGHTS_DIR", error_class=WeightsError
    )
    assert (type(error), error.exit_code, error.remedy) == (
        WeightsError,
        4,
        "set DEBLUR_WEIGHTS_DIR",
    )


def test_a_missing_extra_is_installed_from_the_index_or_in_a_checkout() -> None:
    remedy = "pip install 'deblurcli[onnx]' (in a checkout: pip install '.[onnx]')"
    error = not_installed("--backend onnx", "onnxruntime", "onnx")
    assert str(error) == f"--backend onnx: needs the package onnxruntime; {remedy}"
    assert error.exit_code == 2
    assert type(not_installed("a", "b", "c", WeightsError)) is WeightsError


def test_the_common_sentences() -> None:
    assert str(already_exists("a", others=1)).startswith("a: exists already (and 1 other output); ")
    assert already_exists("a").exit_code == 2
    assert str(sizes_differ("a", (4, 3), "b", (2, 1))) == (
        "a: is 4x3 pixels, but b 2x1; give pictures of one size"
    )
    assert type(sizes_differ("a", (4, 3), "b", (2, 1))) is DeblurError
