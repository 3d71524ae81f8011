"""Evaluating: which figures come out, how a run resumes, Köhler's protocol, the command."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from deblurcli import Deblurrer
from deblurcli.errors import DeblurError, DeviceMemoryError, NothingToDoError, UsageError
from deblurcli.evaluation import koehler, metrics
from deblurcli.evaluation.cases import find_cases, score_pair
from deblurcli.evaluation.evaluate import (
    BLURRED,
    Failure,
    Method,
    results_of,
    score_cases,
)
from deblurcli.evaluation.report import tabulate
from deblurcli.evaluation.scores import Score, ScoreFile, summarise
from deblurcli.models.deepdeblur import deepdeblur_config
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.models.network import count_gmacs
from deblurcli.weights.files import load_weights, save_weights


class Brighten:
    """Adds one level and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def restore(self, image: np.ndarray) -> np.ndarray:
        self.calls += 1
        return np.minimum(image, 254).astype(np.uint8) + np.uint8(1)


def picture(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    image = data.astronaut()[seed * 7 : seed * 7 + height, 100 : 100 + width]
    return np.ascontiguousarray(image)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


MakeSet = Callable[..., Path]


@pytest.fixture
def gopro(tmp_path: Path) -> Path:
    """GOPRO's layout with both kinds of blur, three pictures each."""
    for index in range(3):
        sharp = picture(index)
        for kind, offset in (("blur", 3), ("blur_gamma", 9), ("sharp", 0)):
            path = tmp_path / "GOPRO" / "test" / "GOPR0001_11_00" / kind / f"{index:06}.png"
            save(path, np.clip(sharp.astype(int) + offset, 0, 255).astype(np.uint8))
    return tmp_path / "GOPRO"


def test_psnr_is_the_mean_of_per_image_values_for_each_kind(gopro: Path) -> None:
    cases = find_cases([gopro])
    scores = [s for s in score_cases([BLURRED], cases) if isinstance(s, Score)]
    summaries = {s.set_name: s for s in summarise(scores)}
    assert set(summaries) == {"GOPRO linear", "GOPRO gamma"}
    wanted = []
    for case in cases:
        if case.set_name == "GOPRO gamma":
            pair = [np.asarray(Image.open(path)) for path in (case.blurred, *case.sharp)]
            wanted.append(metrics.psnr(*pair))
    assert len(wanted) == 3
    assert summaries["GOPRO gamma"].psnr_db == pytest.approx(sum(wanted) / 3)
    assert summaries["GOPRO linear"].psnr_db > summaries["GOPRO gamma"].psnr_db + 5


def test_sets_of_one_kind_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for root in ("one", "two"):
        for kind in ("blur", "sharp"):
            save(tmp_path / root / kind / "a.png", picture(1))
    names = {case.set_name for case in find_cases([tmp_path / "one", tmp_path / "two"])}
    assert names == {f"pairs ({tmp_path / 'one'})", f"pairs ({tmp_path / 'two'})"}


def test_do_no_harm_is_the_distance_of_a_restored_sharp_picture(gopro: Path) -> None:
    method = Method("brighter", Brighten(), "1")
    case = find_cases([gopro])[0]
    blurred, restored = score_cases([BLURRED, method], [case], identity=True)
    assert isinstance(restored, Score)
    assert isinstance(blurred, Score)
    assert restored.figures["identity_psnr_db"] == pytest.approx(48.13, abs=0.1)  # one level
    assert "identity_psnr_db" not in blurred.figures


def test_a_stopped_run_goes_on_and_measures_nothing_twice(gopro: Path, tmp_path: Path) -> None:
    cases, path = find_cases([gopro]), tmp_path / "scores.csv"
    first = Brighten()
    file = ScoreFile(path)
    run = score_cases([BLURRED, Method("m", first, "1")], cases, file=file)
    for _ in range(5):
        next(run)
    # The process is killed in the middle of a line.
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-30], encoding="utf-8")

    second = Brighten()
    file = ScoreFile(path)
    scores = list(score_cases([BLURRED, Method("m", second, "1")], cases, file=file))
    assert len(scores) == 12
    assert first.calls == 2 + 1  # and one to warm up
    assert second.calls == 4 + 1
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 12
    assert {row["image"] for row in rows} == {case.name for case in cases}

    third = Brighten()
    file = ScoreFile(path)
    again = list(score_cases([BLURRED, Method("m", third, "1")], cases, file=file))
    assert third.calls == 0
    assert again == scores  # the figures survive the file exactly


def test_other_weights_or_another_picture_are_measured_anew(gopro: Path, tmp_path: Path) -> None:
    cases = find_cases([gopro])[:2]
    restorer = Brighten()

    def run(identity: str) -> int:
        before = restorer.calls
        file = ScoreFile(tmp_path / "scores.csv")
        list(score_cases([Method("m", restorer, identity)], cases, file=file))
        return restorer.calls - before

    assert run("weights 1") == 3
    assert run("weights 1") == 0
    assert run("weights 2") == 3
    save(cases[0].blurred, picture(20))
    assert run("weights 1") == 2


def test_what_was_not_asked_for_before_is_measured_then(gopro: Path, tmp_path: Path) -> None:
    cases = find_cases([gopro])[:1]
    method = Method("m", Brighten(), "1")

    def run(do_no_harm: bool) -> Score:
        file = ScoreFile(tmp_path / "scores.csv")
        (score,) = score_cases([method], cases, file=file, identity=do_no_harm)
        assert isinstance(score, Score)
        return score

    assert "identity_psnr_db" not in run(False).figures
    with_harm = run(True)
    assert "identity_psnr_db" in with_harm.figures
    assert run(False) == run(True) == with_harm
    file = ScoreFile(tmp_path / "scores.csv")
    assert list(file.known.values()) == [with_harm]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    file = ScoreFile(tmp_path / "scores.csv")
    file.path.unlink()
    file.path.symlink_to("/dev/full")
    with pytest.raises(DeblurError, match=r"scores\.csv: the disk is full; "):
        file.append(Score("s", "i", "m", {"psnr_db": 30.0}, key="k"))
    assert not file.known


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("name,price\ntea,3\n", encoding="utf-8")
    with pytest.raises(DeblurError, match="not a table of 'deblur eval'"):
        ScoreFile(path)
    assert path.read_text(encoding="utf-8") == "name,price\ntea,3\n"


def test_a_bad_pair_is_reported_and_the_rest_goes_on(gopro: Path) -> None:
    cases = find_cases([gopro])
    save(cases[1].blurred, picture(0, height=20))
    cases[2].blurred.write_bytes(b"not a picture")
    results = list(score_cases([BLURRED], cases))
    failures = [result for result in results if isinstance(result, Failure)]
    assert [f.image for f in failures] == [cases[1].name, cases[2].name]
    assert "60x20 pixels, but its sharp picture 60x40" in str(failures[0].error)
    assert len(results) == 6


def test_a_failing_device_ends_the_run(gopro: Path) -> None:
    class Small:
        def restore(self, image: np.ndarray) -> np.ndarray:
            raise DeviceMemoryError("cpu", "out of memory", "close programs")

    with pytest.raises(DeviceMemoryError):
        list(score_cases([Method("m", Small(), "1")], find_cases([gopro])))


def test_the_papers_network_takes_336_gmac() -> None:
    assert count_gmacs(MultiScaleGenerator(deepdeblur_config(3))) == pytest.approx(336, abs=1)


# ---- pictures made elsewhere ------------------------------------------------------------------


def test_results_of_others_are_scored_as_they_are(gopro: Path, tmp_path: Path) -> None:
    cases = find_cases([gopro], blur="linear")
    for index in range(len(cases)):  # without the folder "test", and one less exact each
        path = tmp_path / "theirs" / "GOPR0001_11_00" / f"{index:06}.png"
        save(path, np.clip(picture(index).astype(int) + index, 0, 255).astype(np.uint8))
    method = results_of(tmp_path / "theirs", cases)
    path = tmp_path / "scores.csv"
    scores = list(score_cases([BLURRED, method], cases, file=ScoreFile(path)))
    theirs = [s for s in scores if isinstance(s, Score) and s.method == "theirs"]
    for index, score in enumerate(theirs):
        theirs_px = np.clip(picture(index).astype(int) + index, 0, 255).astype(np.uint8)
        assert score.psnr_db == metrics.psnr(theirs_px, picture(index))
        assert "seconds" not in score.figures
    # Another picture under the same name is another result.
    save(tmp_path / "theirs" / "GOPR0001_11_00" / "000001.png", picture(1))
    again = list(score_cases([method], cases, file=ScoreFile(path)))
    figures = [s.psnr_db for s in again if isinstance(s, Score)]
    assert figures == [theirs[0].psnr_db, math.inf, theirs[2].psnr_db]


def test_results_that_fit_no_picture_or_several_are_refused(gopro: Path, tmp_path: Path) -> None:
    cases = find_cases([gopro], blur="linear")
    save(tmp_path / "one" / "elsewhere.png", picture(0))
    with pytest.raises(NothingToDoError, match="nothing in it has the name"):
        results_of(tmp_path / "one", cases)
    for folder in ("a", "b"):
        save(tmp_path / "two" / folder / "test" / "GOPR0001_11_00" / "000000.png", picture(0))
    with pytest.raises(UsageError, match="both fit test/GOPR0001_11_00/000000"):
        results_of(tmp_path / "two", cases)
    save(tmp_path / "flat" / "000000.png", picture(0))
    with pytest.raises(UsageError, match=r"000000\.png: fits .* and .*; keep"):
        results_of(tmp_path / "flat", [*cases, replace(cases[0], name="test/other/000000")])


def test_a_missing_result_and_one_of_another_size_are_named(gopro: Path, tmp_path: Path) -> None:
    cases = find_cases([gopro], blur="linear")
    save(tmp_path / "r" / "000000.png", picture(0, height=20))
    results = list(score_cases([results_of(tmp_path / "r", cases)], cases))
    assert all(isinstance(result, Failure) for result in results)
    assert "60x20 pixels" in str(results[0].error)  # type: ignore[union-attr]
    assert "has no result in r" in str(results[1].error)  # type: ignore[union-attr]


def test_a_mean_of_fewer_pictures_than_the_others_says_so(gopro: Path, tmp_path: Path) -> None:
    cases = find_cases([gopro], blur="linear")
    save(tmp_path / "r" / "000000.png", picture(0))
    method = results_of(tmp_path / "r", cases)
    scores = [s for s in score_cases([BLURRED, method], cases) if isinstance(s, Score)]
    (table,) = tabulate(summarise(scores), [BLURRED, method], metrics.find_metrics(["psnr"]))
    assert [name for name, _ in table.rows] == [BLURRED.name, f"r (1 of {len(cases)})"]


def test_one_kind_of_blur_can_be_chosen(gopro: Path, tmp_path: Path) -> None:
    for blur in ("linear", "gamma"):
        assert {c.set_name for c in find_cases([gopro], blur=blur)} == {f"GOPRO {blur}"}
    for kind in ("blur", "sharp"):
        save(tmp_path / "pairs" / kind / "a.png", picture(1))
    assert len(find_cases([tmp_path / "pairs"], blur="gamma")) == 1
    shutil.rmtree(gopro / "test" / "GOPR0001_11_00" / "blur_gamma")
    with pytest.raises(UsageError, match="no GOPRO pairs of blur gamma"):
        find_cases([gopro], blur="gamma")


def test_scoring_overlaps_with_a_gpu_and_keeps_the_order(gopro: Path) -> None:
    """Scoring waits here until the next picture has been restored: in turn, it would never end."""
    cases = find_cases([gopro])
    restored = threading.Semaphore(0)

    class Restorer:
        def restore(self, image: np.ndarray) -> np.ndarray:
            restored.release()
            return image

    def score_later(*arguments: Any) -> dict[str, float]:
        assert restored.acquire(timeout=30)
        return score_pair(*arguments)

    restored.release()  # what comes after the last picture
    gpu = Method("gpu", Restorer(), "1", device=torch.device("meta"))
    waiting = [replace(case, scorer=score_later) for case in cases]
    found = list(score_cases([gpu], waiting, ["psnr"]))
    names = [s.image for s in found if isinstance(s, Score)]
    assert names == [case.name for case in cases]


# ---- Köhler ---------------------------------------------------------------------------------


def scene() -> np.ndarray:
    """A texture, fine and coarse: where it lies is unmistakable."""
    random = np.random.default_rng(3)
    fine = random.integers(0, 128, (200, 260, 3), dtype=np.uint8)
    coarse = Image.fromarray(random.integers(0, 128, (20, 26, 3), dtype=np.uint8))
    return fine + np.asarray(coarse.resize((260, 200), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up set in Köhler's layout: two scenes, one path of five frames, and 1_3."""
    root = tmp_path_factory.mktemp("koehler")
    for index in (1, 2):
        frames = []
        for number in range(1, 6):
            top, left = 20 * index + 2 * number, 20 + 3 * number
            frame = scene()[top : top + 96, left : left + 128]
            path = root / f"Image{index}" / "Kernel1" / f"GroundTruth{index}_1_{number}.png"
            save(path, frame)
            frames.append(frame.astype(float))
        save(root / f"Blurry{index}_1.png", np.rint(np.mean(frames, axis=0)).astype(np.uint8))
    for number in (29, 30, 31, 198, 199):
        path = root / "Image1" / "Kernel3" / f"GroundTruth1_3_{number}.png"
        save(path, np.full((16, 16, 3), number, np.uint8))
    save(root / "Blurry1_3.png", np.full((16, 16, 3), 9, np.uint8))
    return root


def test_koehlers_layout_is_found(shaken: Path) -> None:
    cases = find_cases([shaken])
    assert [case.name for case in cases] == ["1_1", "1_3", "2_1"]
    assert {case.set_name for case in cases} == {"Köhler"}
    assert [path.stem for path in cases[0].sharp] == [f"GroundTruth1_1_{i}" for i in range(1, 6)]
    # The benchmark's script leaves frame 30 and those after 198 of this one out.
    assert [path.stem for path in cases[1].sharp] == [
        f"GroundTruth1_3_{number}" for number in (29, 31, 198)
    ]


def test_a_frame_out_of_place_and_too_dark_is_recognised(shaken: Path) -> None:
    """Shift and brightness are forgiven, as in the original."""
    case = find_cases([shaken])[0]
    frames = [np.asarray(Image.open(path)) for path in case.sharp]
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def look(restored: np.ndarray, sharp: np.ndarray) -> float:
        seen.append((restored, sharp))
        return 0.0

    looking = metrics.Metric("look", "", "", None, "", look)
    moved = scene()[28 - 3 : 124 - 3, 32 + 5 : 160 + 5]  # frame 4 is at (28, 32)
    restored = np.rint(moved * 0.8).astype(np.uint8)
    koehler.score(restored, frames, [metrics.METRICS["psnr_db"], looking])
    # All frames are cut from one picture: whichever it is, the two must lie on each other.
    # (Brightness is matched before the shift, as in the original, so it fits but roughly.)
    ((placed, sharp),) = seen
    assert placed.shape == sharp.shape
    assert placed.shape != restored.shape
    assert np.corrcoef(placed.ravel(), sharp.ravel())[0, 1] > 0.999
    assert metrics.psnr(placed, sharp) > metrics.psnr(restored, frames[3]) + 5

    # In place and only too dark, nothing but rounding is left.
    dark = np.rint(frames[1] * 0.5).astype(np.uint8)
    figures = koehler.score(dark, frames, [metrics.METRICS["psnr_db"]])
    assert figures["frame"] == 2
    assert figures["psnr_db"] > 50


def test_results_are_named_as_koehlers_benchmark_asks(shaken: Path, tmp_path: Path) -> None:
    cases = find_cases([shaken])
    for case in cases:
        save(tmp_path / "Muller" / f"Muller{case.name}.png", np.asarray(Image.open(case.sharp[0])))
    found = list(score_cases([results_of(tmp_path / "Muller", cases)], cases, ["psnr"]))
    figures = {s.image: s.figures for s in found if isinstance(s, Score)}
    assert set(figures) == {"1_1", "1_3", "2_1"}
    assert figures["2_1"]["psnr_db"] == math.inf
    assert figures["2_1"]["frame"] == 1


def test_koehlers_psnr_by_its_definition(shaken: Path) -> None:
    """The benchmark's steps written out plainly, with explicit loops over shifts."""
    case = find_cases([shaken])[2]
    blurred = np.asarray(Image.open(case.blurred))
    frames = [np.asarray(Image.open(path)) for path in case.sharp]
    grey = np.array([0.299, 0.587, 0.114])
    best = -math.inf
    for frame in frames:
        x, z = frame.astype(float), blurred.astype(float)
        z *= (x * z).sum() / (z * z).sum()
        # Cyclic cross-correlation of the channels' means, each whole shift in turn.
        mean_x, mean_z = x.mean(axis=2), z.mean(axis=2)
        shifts = [(dy, dx) for dy in range(-12, 13) for dx in range(-12, 13)]
        dy, dx = max(shifts, key=lambda s: float((mean_x * np.roll(mean_z, s, (0, 1))).sum()))
        placed, mask = np.zeros_like(z), np.zeros((*z.shape[:2], 1))
        height, width = z.shape[:2]
        for row in range(height):
            for column in range(width):
                if 0 <= row - dy < height and 0 <= column - dx < width:
                    placed[row, column] = z[row - dy, column - dx]
                    mask[row, column] = 1
        error = float(np.mean(((x * mask - placed) @ grey) ** 2))
        best = max(best, 10 * math.log10(255**2 / error))
    figures = koehler.score(blurred, frames, [metrics.METRICS["psnr_db"]])
    assert figures["psnr_db"] == pytest.approx(best, abs=1e-6)
    score = next(iter(score_cases([BLURRED], [case])))
    assert isinstance(score, Score)
    assert score.psnr_db == pytest.approx(best, abs=1e-6)
    assert score.figures["frame"] in range(1, 6)


def test_koehlers_mssim_is_that_of_its_best_frame(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    large = np.asarray(coarse.resize((250, 200), Image.Resampling.BICUBIC))
    noisy = [
        np.clip(large + random.normal(0, levels, large.shape), 0, 255).astype(np.uint8)
        for levels in (20, 5, 40)
    ]
    for number, frame in enumerate(noisy, start=1):
        save(tmp_path / "Image1" / "Kernel1" / f"GroundTruth1_1_{number}.png", frame)
    save(tmp_path / "Blurry1_1.png", large)
    (score,) = score_cases([BLURRED], find_cases([tmp_path]))
    assert isinstance(score, Score)
    assert score.figures["frame"] == 2
    grey = np.array([0.299, 0.587, 0.114])
    scale = (noisy[1] * 1.0 * large).sum() / (large * 1.0 * large).sum()
    wanted = metrics.mssim(large * scale @ grey, noisy[1] @ grey)
    assert score.figures["mssim"] == pytest.approx(wanted, abs=1e-9)
    assert wanted > 0.9


def test_a_blurred_picture_without_frames_is_named(tmp_path: Path) -> None:
    save(tmp_path / "Blurry4_12.png", picture(0))
    with pytest.raises(DeblurError, match=r"Blurry4_12\.png: has no sharp frames"):
        find_cases([tmp_path])


# ---- the command ----------------------------------------------------------------------------


def test_eval_measures_several_weights_side_by_side(
    deblur_here: Any, gopro: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    network, card = load_weights(tiny_weights)
    save_weights(tmp_path / "other.safetensors", network, card, half=False)
    other = tmp_path / "other.safetensors"
    words = ["eval", "--data", gopro, "--weights", tiny_weights, "--weights", other]
    options = ["--limit", "1", "--csv", tmp_path / "s.csv", "--json", "--do-no-harm"]
    outputs = ["--report", tmp_path / "r.html", "--save-images", tmp_path / "images"]
    run = deblur_here(*words, *options, *outputs)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    rows = [(row["set_name"], row["method"]) for row in document["results"]]
    assert rows == [
        (name, method)
        for name in ("GOPRO gamma", "GOPRO linear")
        for method in ("blurred input", "tiny", "tiny (other)")
    ]
    tiny = document["results"][1]
    assert tiny["pictures"] == 1
    assert tiny["seconds"] > 0
    assert tiny["peak_mib"] > 50
    assert tiny["identity_psnr_db"] is not None
    assert document["methods"][1]["parameters"] > 1000
    assert document["methods"][1]["gmacs_256"] > 0
    assert any("scikit-image" in line for line in document["conventions"])
    assert len(list((tmp_path / "images").rglob("*.png"))) == 4
    assert (tmp_path / "r.html").read_text(encoding="utf-8").count('role="slider"') == 2
    assert [path.name for path in tmp_path.rglob("*.part")] == []

    # Stopped after the last picture, before its line: it is measured again, the picture kept.
    lines = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "s.csv").write_text("".join(lines[:-1]), encoding="utf-8")
    more = deblur_here(*words, *options, "--save-images", tmp_path / "images")
    assert more.returncode == 0, more.stderr
    assert len((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()) == len(lines)
    picture = next((tmp_path / "images").rglob("*.png"))
    Image.new("RGB", (8, 8)).save(picture)
    other_picture = deblur_here(*words, "--limit", "1", "--save-images", tmp_path / "images")
    assert other_picture.returncode == 2
    assert f"{picture}: exists already; give another --save-images" in other_picture.stderr
    no_folder = deblur_here(*words, "--save-images", tmp_path / "s.csv")
    assert no_folder.returncode == 2
    assert "s.csv: is a file, not a folder" in no_folder.stderr

    table = deblur_here(*words, *options[:4], "--markdown").stdout.split("\n\n")
    assert [text for text in table if text.startswith("### ")] == [
        f"### GOPRO {kind}, 1 picture" for kind in ("gamma", "linear")
    ]
    titles, _, _, row, _ = ([c.strip() for c in x.split("|")[1:-1]] for x in table[1].splitlines())
    cells = dict(zip(titles, row, strict=True))
    assert cells["Method"] == "tiny"
    assert cells["PSNR dB"].strip("*") == f"{tiny['psnr_db']:.2f}"
    assert float(cells["GMACs"]) > 0

    # The same words again: all is known, and what exists is not replaced.
    again = deblur_here(*words, *options[:-2], "--report", tmp_path / "r.html")
    assert again.returncode == 2
    assert "r.html: exists" in again.stderr


def test_eval_scores_results_without_loading_weights(
    deblur_here: Any, gopro: Path, tmp_path: Path
) -> None:
    shutil.copytree(gopro / "test" / "GOPR0001_11_00" / "sharp", tmp_path / "perfect")
    words = ("--blur", "gamma", "--results", tmp_path / "perfect", "--metrics", "psnr,ssim")
    run = deblur_here("eval", "--data", gopro, *words, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    rows = [(r["set_name"], r["method"], r["psnr_db"]) for r in document["results"]]
    assert rows[1] == ("GOPRO gamma", "perfect", None)  # infinite
    assert len(rows) == 2
    assert document["results"][1]["ssim"] == 1
    assert "sharpness" not in document["results"][1]


def test_processes_share_the_pictures(
    deblur: Any, deblur_here: Any, gopro: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["eval", "--data", gopro, "--weights", tiny_weights, "--metrics", "psnr", "--json"]
    alone = deblur_here(*words, "--device", "cpu")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--standalone", "--no-python"]
    shared = deblur(*words, "--device", "cpu", "--csv", tmp_path / "s.csv", prefix=torchrun)
    assert shared.returncode == 0, shared.stderr

    def figures(text: str) -> list[tuple[str, str, int, float]]:
        rows = json.loads(text)["results"]
        return [(r["set_name"], r["method"], r["pictures"], round(r["psnr_db"], 9)) for r in rows]

    assert figures(shared.stdout) == figures(alone.stdout)
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as lines:
        assert len(list(csv.DictReader(lines))) == 12


def test_eval_measures_an_ensemble(
    deblur_here: Any, gopro: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["eval", "--data", gopro, "--weights", tiny_weights, "--ensemble", "2", "--limit", "1"]
    words += ["--blur", "linear", "--metrics", "psnr", "--save-images", tmp_path / "restored"]
    run = deblur_here(*words)
    assert run.returncode == 0, run.stderr
    (saved,) = (tmp_path / "restored").rglob("*.png")
    blurred = np.asarray(Image.open(find_cases([gopro], "test", "linear")[0].blurred))
    one, two = (Deblurrer.load(tiny_weights, ensemble=n).restore(blurred) for n in (1, 2))
    np.testing.assert_array_equal(np.asarray(Image.open(saved)), two)
    assert (one != two).any()


def test_eval_prints_a_table_and_fails_for_a_bad_pair(
    deblur_here: Any, gopro: Path, tiny_weights: Path
) -> None:
    bad = find_cases([gopro])[0].blurred
    bad.write_bytes(b"")
    run = deblur_here("eval", "--data", gopro, "--weights", tiny_weights)
    assert run.returncode == 1
    assert str(bad) in run.stderr
    assert "Traceback" not in run.stderr
    assert "GOPRO linear (3)" in run.stdout
    assert "no sample covariance" in run.stderr
    lines = [line.split() for line in run.stdout.splitlines() if line.startswith("blurred")]
    assert len(lines) == 2


def test_real_gopro_pairs_have_the_known_figures(shared_data: Path) -> None:
    """Measured once with scikit-image 0.26 alone."""
    cases = find_cases([shared_data / "gopro", shared_data / "gopro_gamma"])
    summaries = summarise(s for s in score_cases([BLURRED], cases) if isinstance(s, Score))
    figures = {s.set_name: (s.psnr_db, s.figures["ssim"]) for s in summaries}
    assert figures["GOPRO linear"] == pytest.approx((23.8159, 0.71044), abs=1e-3)
    assert figures["GOPRO gamma"] == pytest.approx((23.8255, 0.81858), abs=1e-3)


def test_json_has_no_infinity(deblur_here: Any, gopro: Path, tiny_weights: Path) -> None:
    case = find_cases([gopro])[0]
    shutil.copy(case.sharp[0], case.blurred)
    words = ("--weights", tiny_weights, "--limit", "1", "--metrics", "psnr", "--json")
    run = deblur_here("eval", "--data", gopro, *words)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout, parse_constant=pytest.fail)
    assert document["results"][0]["psnr_db"] is None


@pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
def test_names_that_are_not_text_are_measured_and_remembered(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    for kind in ("blur", "sharp"):
        save(tmp_path / kind / "plain.png", picture(0))
        (tmp_path / kind / "plain.png").rename(tmp_path / kind / name)
    cases, restorer = find_cases([tmp_path]), Brighten()
    for calls in (2, 2):  # one to warm up, one to measure; then none
        file = ScoreFile(tmp_path / "scores.csv")
        (score,) = score_cases([Method("m", restorer, "1")], cases, file=file)
        assert isinstance(score, Score)
        assert restorer.calls == calls


def test_overwriting_a_report_forgets_no_figures(
    gopro: Path, tiny_weights: Path, tmp_path: Path, deblur_here: Callable[..., Any]
) -> None:
    report, table = tmp_path / "report.html", tmp_path / "scores.csv"
    words = ["eval", "--data", gopro, "--weights", tiny_weights, "--limit", "1"]
    words += ["--csv", table, "--report", report]
    assert deblur_here(*words).returncode == 0
    figures = table.read_text(encoding="utf-8")  # seconds included: they never come out alike
    assert deblur_here(*words, "--overwrite").returncode == 0
    assert table.read_text(encoding="utf-8") == figures
