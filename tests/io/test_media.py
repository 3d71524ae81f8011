"""Finding photos and videos in folders."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deblurcli.io import media


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder: Path, **options: object) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in media.find(folder, **options)]


def test_gaps_in_numbers(tmp_path: Path) -> None:
    fill(tmp_path, *(f"take2-{n:03}.png" for n in (8, 9, 10, 12)))
    assert media.frame_numbers(media.find(tmp_path)) == [8, 9, 10, 12]
    fill(tmp_path, "other.png")
    assert media.frame_numbers(media.find(tmp_path)) == []


def test_natural_order(tmp_path: Path) -> None:
    fill(tmp_path, "10.jpg", "9.jpg", "1.jpg", "img2.PNG", "IMG10.png", "img1.png")
    assert found(tmp_path) == ["1.jpg", "9.jpg", "10.jpg", "img1.png", "img2.PNG", "IMG10.png"]


def test_only_photos_unless_videos_are_wanted(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.mp4", "c.txt", "d", "e.HEIC", "f.MOV", "g.pdf")
    assert found(tmp_path) == ["a.jpg", "e.HEIC"]
    assert found(tmp_path, videos=True) == ["a.jpg", "b.mp4", "e.HEIC", "f.MOV"]


def test_hidden_files_and_own_outputs_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", ".b.jpg", "a-sharp.jpg", "a.jpg.77.part", ".thumbs/c.jpg", "._a.jpg")
    assert found(tmp_path, recursive=True) == ["a.jpg"]


def test_recursive_or_not(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "day 2/b.jpg", "day 10/c.jpg", "day 2/deep/d.jpg")
    assert found(tmp_path) == ["a.jpg"]
    assert set(found(tmp_path, recursive=True)) == {
        "a.jpg", "day 2/b.jpg", "day 10/c.jpg", "day 2/deep/d.jpg"
    }  # fmt: skip
    order = found(tmp_path, recursive=True)
    assert order.index("day 2/b.jpg") < order.index("day 10/c.jpg")


def test_folder_of_results_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "out/a.jpg", "in/b.jpg")
    assert found(tmp_path, recursive=True, leave_out=[tmp_path / "in" / ".." / "out"]) == [
        "a.jpg",
        "in/b.jpg",
    ]


def test_folder_with_the_name_of_a_photo(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg/b.jpg")
    assert found(tmp_path) == []
    assert found(tmp_path, recursive=True) == ["a.jpg/b.jpg"]


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_links(tmp_path: Path) -> None:
    fill(tmp_path, "folder/a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "folder" / "a.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "folder" / "circle").symlink_to(tmp_path)
    assert found(tmp_path, recursive=True) == ["b.jpg", "folder/a.jpg"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        media.find(tmp_path / "none")


@settings(max_examples=20, deadline=None)
@given(numbers=st.sets(st.integers(0, 10**9), min_size=2, max_size=20))
def test_numbers_count_by_value(numbers: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            Path(folder, f"frame {number}.png").touch()
        found = [path.name for path in media.find(Path(folder))]
    assert found == [f"frame {number}.png" for number in sorted(numbers)]


@pytest.mark.parametrize(
    ("names", "is_clip"),
    [
        (["f_0001.png", "f_0002.png", "f_0003.png"], True),
        (["9.jpg", "10.jpg"], True),
        (["f_0001.png"], False),
        (["f_0001.png", "f_0002.jpg"], False),
        (["a.png", "b.png"], False),
        (["x1_y1.png", "x2_y2.png"], False),
        (["beach.jpg", "hotel.jpg", "1.jpg"], False),
        ([], False),
    ],
)
def test_numbered_frames(tmp_path: Path, names: list[str], is_clip: bool) -> None:
    fill(tmp_path, *names)
    frames = [path.name for path in media.find_clip(tmp_path)]
    assert frames == (names if is_clip else [])


def test_kinds() -> None:
    assert media.kind_of(Path("a.MP4")) == "video"
    assert media.kind_of(Path("a.HEIC")) == "photo"
    assert media.kind_of(Path("no ending")) == "photo"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animated(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (0, 200)]
    frames[0].save(tmp_path / f"moving{suffix}", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / f"still{suffix}")
    (tmp_path / f"damaged{suffix}").write_bytes(b"GIF89a")
    assert media.is_animated(tmp_path / f"moving{suffix}")
    assert not media.is_animated(tmp_path / f"still{suffix}")
    assert not media.is_animated(tmp_path / f"damaged{suffix}")
    assert not media.is_animated(tmp_path / f"missing{suffix}")


def test_real_folders(shared_data: Path) -> None:
    frames = media.find_clip(shared_data / "formats" / "orientation")
    assert [path.stem for path in frames] == [f"Landscape_{i}" for i in range(1, 9)]
