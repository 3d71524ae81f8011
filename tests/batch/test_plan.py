"""Planning: what a run would read and write, and what it refuses to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deblurcli.batch.plan import Plan, plan
from deblurcli.errors import DeblurError, NothingToDoError, UsageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes empty files in an empty current folder: planning looks at names only."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"-")  # an empty one counts as left behind
        return tmp_path

    return make


def pairs(planned: Plan) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.target)) for job in planned.jobs]


def test_without_output_the_result_lies_beside_the_photo(tree: Callable[..., Path]) -> None:
    tree("holiday/beach.JPG")
    assert pairs(plan(["holiday/beach.JPG"])) == [("holiday/beach.JPG", "holiday/beach-sharp.JPG")]


def test_output_is_a_file_for_one_photo(tree: Callable[..., Path]) -> None:
    tree("a.jpg")
    assert pairs(plan(["a.jpg"], "b.png")) == [("a.jpg", "b.png")]


@pytest.mark.parametrize("output", ["there", "new/"])
def test_output_is_a_folder_if_it_is_one_or_ends_in_a_slash(
    tree: Callable[..., Path], output: str
) -> None:
    tree("a.jpg", "there/other.jpg")
    assert pairs(plan(["a.jpg"], output)) == [("a.jpg", str(Path(output, "a.jpg")))]
    assert not Path("new").exists()  # planning touches nothing


def test_tree_is_mirrored_in_natural_order(tree: Callable[..., Path]) -> None:
    tree("in/10.jpg", "in/2.jpg", "in/deep/er/x.png", "in/notes.txt", "in/.hidden.jpg")
    assert pairs(plan(["in"], "out", recursive=True)) == [
        ("in/2.jpg", "out/2.jpg"),
        ("in/10.jpg", "out/10.jpg"),
        ("in/deep/er/x.png", "out/deep/er/x.png"),
    ]
    assert len(plan(["in"], "out").jobs) == 2


def test_results_of_an_earlier_run_are_no_inputs(tree: Callable[..., Path]) -> None:
    tree("in/a.jpg", "in/a-sharp.jpg", "in/out/a.jpg", "in/b.jpg.77.part")
    planned = plan(["in"], "in/out", recursive=True, overwrite=True)
    assert pairs(planned) == [("in/a.jpg", "in/out/a.jpg")]
    assert plan(["in"], skip_existing=True).jobs == []


def test_files_and_folders_mix_and_are_taken_once(tree: Callable[..., Path]) -> None:
    tree("in/a.jpg", "in/b.jpg", "c.jpg")
    planned = plan(["in/a.jpg", "in", "./in/b.jpg", "c.jpg"], "out")
    assert pairs(planned) == [
        ("in/a.jpg", "out/a.jpg"),
        ("in/b.jpg", "out/b.jpg"),
        ("c.jpg", "out/c.jpg"),
    ]


def test_another_suffix(tree: Callable[..., Path]) -> None:
    tree("a.heic", "b.v1.jpg")
    planned = plan(["a.heic", "b.v1.jpg"], suffix=".png")
    assert [target for _, target in pairs(planned)] == ["a-sharp.png", "b.v1-sharp.png"]


@pytest.mark.parametrize(
    ("inputs", "suffix"),
    [(["x/a.jpg", "y/a.jpg"], None), (["x/a.jpg", "x/a.png"], ".png"), (["x", "y"], None)],
    ids=["two files", "format", "two folders"],
)
def test_two_results_of_one_name_are_refused(
    tree: Callable[..., Path], inputs: list[str], suffix: str | None
) -> None:
    tree("x/a.jpg", "y/a.jpg", "x/a.png")
    with pytest.raises(UsageError, match="would be written twice"):
        plan(inputs, "out", suffix=suffix, overwrite=True)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_two_names_of_one_folder_do_not_hide_a_clash(tree: Callable[..., Path]) -> None:
    tree("x/a.jpg", "y/l/a.jpg", "out/l/z.jpg")
    Path("out/m").symlink_to("l")
    tree("y2/m/a.jpg")
    with pytest.raises(UsageError, match="would be written twice"):
        plan(["y", "y2"], "out", recursive=True)


def test_same_file_in_and_out(tree: Callable[..., Path]) -> None:
    tree("a.jpg", "b.jpg")
    for output in ("a.jpg", "./a.jpg", str(Path.cwd() / "a.jpg"), "."):
        with pytest.raises(UsageError, match="same file"):
            plan(["a.jpg"], output)
        # Even where what exists would be skipped: the photo itself is not its own result.
        with pytest.raises(UsageError, match="same file"):
            plan(["a.jpg"], output, skip_existing=True)
    Path("link.jpg").symlink_to("a.jpg")
    with pytest.raises(UsageError, match="same file"):
        plan(["a.jpg"], "link.jpg")
    assert pairs(plan(["a.jpg", "b.jpg"], ".", overwrite=True)) == [
        ("a.jpg", "a.jpg"),
        ("b.jpg", "b.jpg"),
    ]


def test_a_result_never_replaces_another_input(tree: Callable[..., Path]) -> None:
    tree("x/a.jpg", "y/a.jpg")
    with pytest.raises(UsageError, match="would replace another input"):
        plan(["x/a.jpg", "y/a.jpg"], "y", overwrite=True)


def test_existing_results(tree: Callable[..., Path]) -> None:
    tree("a.jpg", "b.jpg", "c.jpg", "out/a.jpg", "out/b.jpg")
    inputs = ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(UsageError, match=r"out/a.jpg: exists already \(and 1 other output\)"):
        plan(inputs, "out")
    planned = plan(inputs, "out", skip_existing=True)
    assert [str(job.source) for job in planned.done] == ["a.jpg", "b.jpg"]
    assert pairs(planned) == [("c.jpg", "out/c.jpg")]
    assert len(plan(inputs, "out", overwrite=True).jobs) == 3


def test_missing_inputs_do_not_stop_the_others(tree: Callable[..., Path]) -> None:
    tree("a.jpg")
    Path("dangling.jpg").symlink_to("nowhere")
    planned = plan(["a.jpg", "b.jpg", "dangling.jpg", "a.jpg/c.jpg"])
    assert pairs(planned) == [("a.jpg", "a-sharp.jpg")]
    reasons = {str(job.source): error.reason for job, error in planned.failed}
    assert reasons == {
        "b.jpg": "no such file or folder",
        "dangling.jpg": "a link that leads nowhere",
        "a.jpg/c.jpg": "no such file or folder",
    }


def test_nothing_to_do(tree: Callable[..., Path]) -> None:
    tree("in/notes.txt", "in/deep/a.jpg")
    with pytest.raises(NothingToDoError, match="-r to look into sub-folders"):
        plan(["in"])
    with pytest.raises(NothingToDoError, match=r"no photos there; give a photo$"):
        plan(["in"], "in/deep", recursive=True)


def test_output_in_a_missing_folder(tree: Callable[..., Path]) -> None:
    tree("a.jpg")
    with pytest.raises(DeblurError, match="folder does not exist; make it: mkdir -p gone"):
        plan(["a.jpg"], "gone/b.jpg")
    assert pairs(plan(["a.jpg"], "gone/")) == [("a.jpg", "gone/a.jpg")]


@pytest.mark.parametrize("output", ["one.jpg", "a.jpg"])
def test_several_inputs_need_a_folder(tree: Callable[..., Path], output: str) -> None:
    tree("a.jpg", "b.jpg", "in/c.jpg")
    for inputs, why in ((["a.jpg", "b.jpg"], "for several inputs"), (["in"], "but in is a folder")):
        with pytest.raises(UsageError, match=f"names one file, {why}"):
            plan(inputs, output)


def test_unknown_output_format_is_refused_before_the_work(tree: Callable[..., Path]) -> None:
    tree("a.jpg")
    with pytest.raises(UsageError, match=r"\.xyz is no format"):
        plan(["a.jpg"], "b.xyz")


def test_pipes(tree: Callable[..., Path]) -> None:
    tree("a.jpg", "in/b.jpg")
    assert pairs(plan(["-"], "-")) == [("None", "None")]
    assert pairs(plan(["-"], "b.jpg")) == [("None", "b.jpg")]
    assert pairs(plan(["a.jpg"], "-")) == [("a.jpg", "None")]
    for inputs, output in ((["-"], None), (["-", "a.jpg"], "-"), (["in"], "-"), (["-"], "in")):
        with pytest.raises(UsageError):
            plan(inputs, output)
    with pytest.raises(UsageError, match="exists already"):
        plan(["-"], "a.jpg")
    with pytest.raises(DeblurError, match="no such file"):
        plan(["gone.jpg"], "-")


def test_thousands_of_files_keep_their_order(tree: Callable[..., Path]) -> None:
    root = tree("in/0.jpg")
    for number in range(1, 3000):
        (root / "in" / f"{number}.jpg").touch()
    planned = plan(["in"], "out")
    assert [source for source, _ in pairs(planned)][2998:] == ["in/2998.jpg", "in/2999.jpg"]


def test_numbered_photos_above_other_media_are_no_clip(tree: Callable[..., Path]) -> None:
    tree("frames/IMG_1.jpg", "frames/IMG_2.jpg")
    clip = [("frames", "out/frames.mp4")]
    assert pairs(plan(["frames"], "out/", videos=True)) == clip
    assert pairs(plan(["frames"], "out/", videos=True, recursive=True)) == clip
    tree("frames/sub/clip.mp4", "frames/sub/x.jpg")
    assert pairs(plan(["frames"], "out/", videos=True)) == clip
    assert pairs(plan(["frames"], "out/", videos=True, recursive=True)) == [
        (f"frames/{name}", f"out/{name}")
        for name in ("IMG_1.jpg", "IMG_2.jpg", "sub/clip.mp4", "sub/x.jpg")
    ]
    tree("squares/A1².jpg", "squares/A2².jpg")
    assert pairs(plan(["squares"], "out/", videos=True)) == [("squares", "out/squares.mp4")]


def test_an_ending_that_contradicts_the_format_is_refused(tree: Callable[..., Path]) -> None:
    tree("a.jpg")
    for inputs in (["a.jpg"], ["-"]):
        with pytest.raises(UsageError, match=r"b\.jpg: its ending contradicts --format png"):
            plan(inputs, "b.jpg", suffix=".png")
        for output in ("b", "b.png", "b.PNG"):
            assert len(plan(inputs, output, suffix=".png").jobs) == 1


def test_frames_of_a_video_lie_in_a_folder_of_its_whole_name(tree: Callable[..., Path]) -> None:
    tree("my.holiday.mp4")
    assert pairs(plan(["my.holiday.mp4"], to_frames=True)) == [
        ("my.holiday.mp4", "my.holiday-sharp")
    ]


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("frames", "frames"),
        ("frames/", "frames"),
        ("there", "there/clip"),
        ("there/", "there/clip"),
        ("done", "done"),
        ("done/", "done"),
    ],
)
def test_frames_of_a_single_video_lie_in_the_folder_that_is_named(
    tree: Callable[..., Path], output: str, folder: str
) -> None:
    tree("clip.mp4", "there/other.png", "done/frame-000001.png", "done/frame-000002.png")
    planned = plan(["clip.mp4"], output, to_frames=True, overwrite=True)
    assert pairs(planned) == [("clip.mp4", folder)]
