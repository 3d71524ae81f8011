"""Finding pairs in the layouts of the public data sets, and saying what is wrong with a set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from deblurcli.data.layouts import (
    Pair,
    check_pairs,
    find_pairs,
    find_pictures,
    hold_out_scenes,
    keep_blur,
)
from deblurcli.data.pictures import keep_large, read_picture
from deblurcli.errors import DeblurError, NothingToDoError, UsageError

Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes small pictures: ``make("train/A/blur/1.png", ...)``."""

    def write(*names: str, size: tuple[int, int] = (16, 12)) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(path)

    return write


def names(pairs: list[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


@pytest.fixture
def gopro(make: Make, tmp_path: Path) -> Path:
    """GOPRO_Large as published: both kinds of blur in every sequence."""
    for sequence in ("train/GOPR0372_07_00", "train/GOPR0372_07_01", "test/GOPR0384_11_00"):
        for number in (9, 10):
            for kind in ("blur", "blur_gamma", "sharp"):
                make(f"GOPRO_Large/{sequence}/{kind}/{number:06d}.png")
    (tmp_path / "GOPRO_Large/train/GOPR0372_07_00/frames X offset.txt").write_text("x")
    return tmp_path / "GOPRO_Large"


def test_gopro_as_published(gopro: Path) -> None:
    pairs = find_pairs(gopro)
    assert len(pairs) == 12
    assert len({pair.name for pair in pairs}) == 12
    for pair in pairs:
        folder = {"GOPRO linear": "blur", "GOPRO gamma": "blur_gamma"}[pair.kind]
        assert pair.blurred.parent.name == folder
        assert pair.sharp == pair.blurred.parents[1] / "sharp" / pair.blurred.name
        assert pair.name.startswith(f"{pair.part}/GOPR")


@pytest.mark.parametrize(
    ("below", "split", "count"),
    [
        ("", "train", 8),
        ("", "test", 4),
        ("", "val", 4),  # there is none: the test part stands in
        ("..", "train", 8),  # the folder that holds the data set
        ("train", None, 8),
        ("train", "test", 8),  # the user named the part
        ("train/GOPR0372_07_01", None, 4),
        ("test/GOPR0384_11_00/blur_gamma", None, 2),
    ],
)
def test_any_folder_of_gopro(gopro: Path, below: str, split: str | None, count: int) -> None:
    assert len(find_pairs(gopro / below, split)) == count


def test_folder_given_as_dot(gopro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gopro / "train" / "GOPR0372_07_00")
    pairs = find_pairs(".")
    assert [pair.kind for pair in pairs] == ["GOPRO gamma"] * 2 + ["GOPRO linear"] * 2
    monkeypatch.chdir("blur")
    assert names(find_pairs(".")) == ["000009", "000010"]


def test_missing_part_is_no_reason_to_take_the_other(gopro: Path) -> None:
    """Training on the test part because there is no train part would spoil every figure."""
    (gopro / "train").rename(gopro.parent / "elsewhere")
    with pytest.raises(UsageError, match="has no train part, only test"):
        find_pairs(gopro, "train")


def reds_names(part: str, kind: str, clip: str = "000") -> list[str]:
    return [f"{part}_{kind}/{clip}/{number:08d}.png" for number in range(2)]


@pytest.mark.parametrize("prefix", ["{part}/", ""], ids=["as published", "unzipped flat"])
def test_reds(make: Make, tmp_path: Path, prefix: str) -> None:
    for part in ("train", "val"):
        for kind in ("blur", "sharp"):
            make(*(f"REDS/{prefix.format(part=part)}{n}" for n in reds_names(part, kind)))
    # The sharp test pictures are kept back by the authors.
    make(*(f"REDS/{prefix.format(part='test')}{n}" for n in reds_names("test", "blur")))
    root = tmp_path / "REDS"
    everything = find_pairs(root)
    assert names(everything) == [f"{p}/000/0000000{n}" for p in ("train", "val") for n in (0, 1)]
    assert {pair.kind for pair in everything} == {"REDS"}
    assert names(find_pairs(root, "train")) == names(everything)[:2]
    assert names(find_pairs(root, "test")) == names(everything)[2:]


def test_reds_compressed_shares_its_sharp_pictures(make: Make, tmp_path: Path) -> None:
    for kind in ("blur", "blur_comp", "sharp"):
        make(*(f"train/{name}" for name in reds_names("train", kind)))
    pairs = find_pairs(tmp_path)
    assert [pair.kind for pair in pairs] == ["REDS"] * 2 + ["REDS compressed"] * 2
    assert len({pair.name for pair in pairs}) == 4
    assert len({pair.sharp for pair in pairs}) == 2


@pytest.mark.parametrize(
    ("blurred", "sharp"), [("blur", "sharp"), ("blurred", "sharp"), ("input", "target")]
)
def test_plain_folders(make: Make, tmp_path: Path, blurred: str, sharp: str) -> None:
    make(*(f"{blurred}/sub/{n}.jpg" for n in (2, 10)), *(f"{sharp}/sub/{n}.png" for n in (2, 10)))
    pairs = find_pairs(tmp_path)
    assert names(pairs) == ["sub/2", "sub/10"]  # in natural order; the suffix may differ
    assert {pair.kind for pair in pairs} == {"pairs"}
    assert {pair.part for pair in pairs} == {None}


def test_plain_folders_in_parts(make: Make, tmp_path: Path) -> None:
    make(*(f"{part}/{kind}/1.png" for part in ("train", "test") for kind in ("blur", "sharp")))
    assert names(find_pairs(tmp_path, "train")) == ["train/1"]
    assert find_pairs(tmp_path)[0].kind == "pairs"


def test_hidden_and_foreign_files_are_left_out(make: Make, tmp_path: Path) -> None:
    make("blur/1.png", "sharp/1.png", "sharp/.hidden.png", "blur/.thumbnails/1.png")
    (tmp_path / "blur" / "Thumbs.db").write_bytes(b"x")
    assert names(find_pairs(tmp_path)) == ["1"]


def test_links_are_followed_but_not_in_circles(make: Make, tmp_path: Path) -> None:
    make("elsewhere/blur/1.png", "elsewhere/sharp/1.png")
    (tmp_path / "set").mkdir()
    try:
        (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    except OSError:
        pytest.skip("no links on this file system")
    assert names(find_pairs(tmp_path / "set")) == ["linked/1"]


@pytest.mark.parametrize(
    ("files", "culprit", "words"),
    [
        (["blur/1.png", "blur/2.png", "sharp/1.png"], "blur/2.png", "has no partner in"),
        (["blur/1.png", "sharp/1.png", "sharp/0.png"], "sharp/0.png", "has no partner in"),
        (["blur/1.png"], "blur", "no folder sharp beside it"),
        (["train_blur/0/1.png"], "train_blur", "no folder train_sharp beside it"),
        (["blur/1.png", "blur/1.jpg", "sharp/1.png"], "blur/1.", "has the name of"),
    ],
)
def test_unpaired_is_named(
    make: Make, tmp_path: Path, files: list[str], culprit: str, words: str
) -> None:
    make(*files)
    with pytest.raises(DeblurError, match=words) as caught:
        find_pairs(tmp_path)
    assert caught.value.subject.startswith(str(tmp_path / culprit))
    assert "\n" not in str(caught.value)


def test_no_layout(make: Make, tmp_path: Path) -> None:
    make("holiday/1.png")
    with pytest.raises(NothingToDoError, match="in any known layout"):
        find_pairs(tmp_path)
    assert find_pictures(tmp_path) == [tmp_path / "holiday" / "1.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDoError):
        find_pictures(tmp_path / "empty")
    for find in (find_pairs, find_pictures):
        with pytest.raises(DeblurError, match="no such folder"):
            find(tmp_path / "missing")


def test_photos_in_a_folder_called_input_are_photos(make: Make, tmp_path: Path) -> None:
    make("input/1.png")
    with pytest.raises(NothingToDoError):
        find_pairs(tmp_path)


def test_sizes_that_differ(make: Make, tmp_path: Path) -> None:
    make("blur/1.png", "sharp/1.png", "sharp/2.png")
    make("blur/2.png", size=(16, 13))
    pairs = find_pairs(tmp_path)
    check_pairs(pairs[:1])
    with pytest.raises(DeblurError, match=r"2\.png: is 16x13 pixels, but .*sharp.2\.png 16x12"):
        check_pairs(pairs)
    with pytest.raises(DeblurError, match=r"1\.png: is 16x12 pixels, smaller than the 64"):
        check_pairs(pairs[:1], min_px=64)


def test_damaged_pictures_are_named(make: Make, tmp_path: Path) -> None:
    make("blur/1.png", "sharp/1.png")
    Image.frombytes("RGB", (16, 12), os.urandom(16 * 12 * 3)).save(tmp_path / "sharp" / "1.png")
    whole = (tmp_path / "sharp" / "1.png").read_bytes()
    for content, words in ((b"", "is empty or no picture"), (b"<html>", "is empty or no picture")):
        (tmp_path / "sharp" / "1.png").write_bytes(content)
        with pytest.raises(DeblurError, match=rf"sharp.1\.png: {words}"):
            check_pairs(find_pairs(tmp_path))
    # A cut off file has a good header: reading it says so.
    (tmp_path / "sharp" / "1.png").write_bytes(whole[: len(whole) // 2])
    check_pairs(find_pairs(tmp_path))
    with pytest.raises(DeblurError, match=r"sharp.1\.png: can't be read as a picture \("):
        read_picture(tmp_path / "sharp" / "1.png")
    with pytest.raises(DeblurError, match="No such file"):
        read_picture(tmp_path / "missing.png")


def test_too_small_photos_are_left_out(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make("a.png", size=(300, 400))
    make("b.png", "c.png", size=(400, 299))
    assert keep_large(find_pictures(tmp_path), 300) == [tmp_path / "a.png"]
    assert "b.png and 1 others: left out, smaller than 300 pixels" in caplog.text
    with pytest.raises(DeblurError, match="smaller than the 500"):
        keep_large(find_pictures(tmp_path), 500)


def test_thousands_of_files_take_seconds(tmp_path: Path, make: Make) -> None:
    """REDS has 24 000 pairs: listing and checking must not be what one waits for."""
    make("first.png")
    for kind in ("blur", "sharp"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(1500):
            os.link(tmp_path / "first.png", tmp_path / "set" / kind / f"{number:06d}.png")
    start = time.process_time()
    pairs = find_pairs(tmp_path / "set")
    check_pairs(pairs)
    assert len(pairs) == 1500
    assert time.process_time() - start < 5.0  # 0.5 s where this was written


@pytest.mark.parametrize(
    ("root", "kind", "count"),
    [
        ("gopro", "GOPRO linear", 2),
        ("gopro_gamma", "GOPRO gamma", 1),
        ("reds", "REDS", 10),
    ],
)
def test_real_sets(shared_data: Path, root: str, kind: str, count: int) -> None:
    pairs = find_pairs(shared_data / root, "test")
    assert len(pairs) == count
    assert {pair.kind for pair in pairs} == {kind}
    check_pairs(pairs, min_px=256)


def test_real_reds_training_part(shared_data: Path) -> None:
    pairs = find_pairs(shared_data / "reds", "train")
    assert len(pairs) == 50
    assert {pair.part for pair in pairs} == {"train"}


@pytest.mark.parametrize(
    ("blurred", "sharp"), [("lq", "gt"), ("LQ", "GT"), ("blur_crops", "sharp_crops")]
)
def test_basicsr(make: Make, tmp_path: Path, blurred: str, sharp: str) -> None:
    make(*(f"train/{half}/{n}.png" for half in (blurred, sharp) for n in (1, 2)))
    pairs = find_pairs(tmp_path, "train")
    assert names(pairs) == ["train/1", "train/2"]
    assert {(pair.blurred.parent.name, pair.sharp.parent.name) for pair in pairs} == {
        (blurred, sharp)
    }


@pytest.mark.parametrize("above", ["LQ", "blur", "input"])
def test_a_data_set_may_lie_in_a_folder_of_such_a_name(
    make: Make, tmp_path: Path, above: str
) -> None:
    make(f"{above}/lq/1.png", f"{above}/gt/1.png")
    assert names(find_pairs(tmp_path)) == [f"{above}/1"]
    assert names(find_pairs(tmp_path / above)) == ["1"]


def test_hide(make: Make, tmp_path: Path) -> None:
    """Blurred pictures of both parts share one folder of sharp ones."""
    root = tmp_path / "HIDE_dataset"
    make("HIDE_dataset/train/1fromGOPR0950.png", "HIDE_dataset/test/test-close-ups/2.png")
    make("HIDE_dataset/test/test-long-shot/3.png")
    make(*(f"HIDE_dataset/GT/{name}.png" for name in ("1fromGOPR0950", "2", "3", "unused")))
    assert names(find_pairs(root, "train")) == ["train/1fromGOPR0950"]
    test = find_pairs(root, "test")
    assert names(test) == ["test/2", "test/3"]
    assert {pair.kind for pair in test} == {"HIDE"}
    assert all(pair.sharp == root / "GT" / pair.blurred.name for pair in test)
    assert len(find_pairs(root / "test")) == 2


def test_realblur(make: Make, tmp_path: Path) -> None:
    """Its lists say which scene belongs to which part."""
    top = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    for scene in ("scene001", "scene002"):
        make(*(f"{top}/{scene}/{half}/{half}_{n}.png" for half in ("blur", "gt") for n in (1, 2)))
    for part, scene in (("train", "scene001"), ("test", "scene002")):
        lines = (f"{top}/{scene}/gt/gt_{n}.png {top}/{scene}/blur/blur_{n}.png" for n in (1, 2))
        (tmp_path / f"RealBlur_J_{part}_list.txt").write_text("\n".join(lines))
    assert {pair.kind for pair in find_pairs(tmp_path)} == {"RealBlur-J"}
    for part, scene in (("train", "scene001"), ("test", "scene002")):
        pairs = find_pairs(tmp_path, part)
        assert names(pairs) == [f"{top}/{scene}/{n}" for n in (1, 2)]
        assert pairs[0].sharp == tmp_path / top / scene / "gt" / "gt_1.png"


@pytest.mark.parametrize("blurred", ["motion_blurred", "inputs", "source"])
def test_what_looks_like_pairs_is_not_taken_for_photos(
    make: Make, tmp_path: Path, blurred: str
) -> None:
    make(f"{blurred}/1.png", "groundtruth/1.png")
    with pytest.raises(UsageError, match=r"looks like pairs .* rename them to blur and sharp"):
        find_pairs(tmp_path)


def test_scenes_are_held_out_whole(make: Make, tmp_path: Path) -> None:
    for scene in range(12):
        make(*(f"train/S{scene:02d}/{half}/{n}.png" for half in ("blur", "sharp") for n in (1, 2)))
    kept, held = hold_out_scenes(find_pairs(tmp_path))
    assert len(kept) + len(held) == 24
    assert len(held) == 2
    assert not {pair.sharp.parent for pair in kept} & {pair.sharp.parent for pair in held}

    one_scene = find_pairs(tmp_path)[:2] * 15
    kept, held = hold_out_scenes(one_scene)
    assert (len(kept), len(held)) == (24, 3)  # three between both are left out
    assert hold_out_scenes(one_scene[:9]) == (one_scene[:9], [])


def test_one_kind_of_gopros_blur(gopro: Path) -> None:
    pairs = find_pairs(gopro, "train")
    assert {pair.kind for pair in keep_blur(pairs, "gamma", gopro)} == {"GOPRO gamma"}
    assert keep_blur(pairs, "both", gopro) == pairs
    with pytest.raises(UsageError, match="holds only GOPRO gamma pairs; give --blur both"):
        keep_blur(keep_blur(pairs, "gamma", gopro), "linear", gopro)
