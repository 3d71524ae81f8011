"""Recipes: what may be changed, how rates fall, and what the paper's own one says."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deblurcli.config import RECIPES, Recipe, RunConfig, change_recipe, load_recipe
from deblurcli.data.dataset import parse_source
from deblurcli.data.degradations import draw_degradation
from deblurcli.errors import UsageError

pytest.importorskip("accelerate", reason="needs the extra 'train'")
from deblurcli.training.schedule import Schedule
from deblurcli.training.train_step import build_generator


@pytest.mark.parametrize(
    "setting",
    [
        *("nothing=1", "batch", "batch=many", "motion.speed=1", "loss=psnr", "optimizer=sgd"),
        *("batch=0", "early_batch=0", "patch_px=0", "reuse=0", "scales=0", "unshuffle=0"),
        *("channels=[]", 'channels=["a"]', "channels=[8,0]", "learning_rate=0", "noise=NaN"),
        *(
            "learning_rate=Infinity",
            "betas=[0.9]",
            "jpeg=1.1",
            "motion.objects=-1",
            "motion.path_px=-50",
        ),
    ],
)
def test_wrong_settings_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--set {setting}: ")):
        change_recipe(Recipe(), [setting])


def test_every_value_of_every_recipe_may_be_set_to_itself() -> None:
    for recipe in RECIPES.values():
        values = asdict(recipe)
        del values["name"]
        motion = {f"motion.{name}": value for name, value in values.pop("motion").items()}
        settings = [f"{name}={json.dumps(value)}" for name, value in (values | motion).items()]
        assert change_recipe(recipe, settings) == recipe


def test_the_papers_rate_falls_to_a_tenth_after_a_third() -> None:
    schedule = Schedule(RECIPES["paper"], steps=900)
    rates = [schedule.learning_rate(step, schedule.progress(step, 0)) for step in range(900)]
    assert rates[:300] == [5e-5] * 300
    assert rates[300:] == pytest.approx([5e-6] * 600)


def test_the_default_rate_is_constant_until_the_last_fifth() -> None:
    recipe = RECIPES["default"]
    schedule = Schedule(recipe, steps=1000)
    rates = [schedule.learning_rate(step, schedule.progress(step, 0)) for step in range(1001)]
    warmup = recipe.warmup_steps
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert set(rates[warmup:800]) == {recipe.learning_rate}
    assert rates[900] == pytest.approx(recipe.learning_rate / 2, rel=0.01)
    assert rates[1000] == pytest.approx(recipe.learning_rate * recipe.final_rate)


def test_the_papers_noise_has_a_deviation_from_a_normal_distribution() -> None:
    rng = np.random.default_rng(0)
    recipe = RECIPES["paper"]
    drawn = [
        draw_degradation(rng, recipe.noise, recipe.jpeg, recipe.noise_kind) for _ in range(4000)
    ]
    deviations = np.array([d.read_noise for d in drawn])
    assert not any(d.shot_noise or d.jpeg_quality for d in drawn)
    assert np.sqrt(np.mean(deviations**2)) == pytest.approx(2 / 255, rel=0.05)
    assert np.mean(deviations < 2 / 255) == pytest.approx(0.683, abs=0.03)  # one sigma


def test_sources_carry_weights(tmp_path: Path) -> None:
    assert parse_source("GOPRO/=0.25") == ("GOPRO/", 0.25)
    odd = tmp_path / "a=1"
    odd.mkdir()
    assert parse_source(str(odd)) == (str(odd), 1.0)
    for weight in ("0", "-1", "nan", "inf"):
        with pytest.raises(UsageError, match="weight is not above 0"):
            parse_source(f"GOPRO/={weight}")


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml"])
def test_recipe_files_hold_what_differs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    recipe = replace(RECIPES["paper"], learning_rate=1e-4, milestones=(0.5, 0.75))
    recipe = replace(recipe, motion=replace(recipe.motion, zoom=0.0))
    if suffix == ".json":  # as --show-recipe prints it
        path.write_text(json.dumps(asdict(recipe)))
    elif suffix == ".toml":
        pytest.importorskip("tomllib")
        path.write_text(
            'name = "paper"\nlearning_rate = 1e-4\nmilestones = [0.5, 0.75]\n[motion]\nzoom = 0'
        )
    else:
        pytest.importorskip("yaml")
        path.write_text(
            "name: paper\nlearning_rate: 1e-4\nmilestones: [0.5, 0.75]\nmotion: {zoom: 0}"
        )
    assert load_recipe(str(path)) == recipe
    path.write_text("{" if suffix != ".toml" else "=")
    with pytest.raises(UsageError, match="mine"):
        load_recipe(str(path))


def test_recipe_files_set_nothing_that_the_network_ignores(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"name": "paper", "channels": [8]}')
    with pytest.raises(UsageError, match=r"mine\.json: channels: the network deepdeblur has no"):
        load_recipe(str(path))
    for recipe in RECIPES.values():  # all values, as --show-recipe prints them
        path.write_text(json.dumps(asdict(recipe)))
        assert load_recipe(str(path)) == recipe


def test_rates_fall_at_milestones() -> None:
    recipe = replace(RECIPES["paper"], milestones=(0.5, 0.75), final_rate=0.25)
    schedule = Schedule(recipe, steps=100)
    rates = [schedule.learning_rate(step, step / 100) / 5e-5 for step in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])


def test_without_an_end_patches_are_large_and_the_rate_stays() -> None:
    schedule = Schedule(Recipe(warmup_steps=0))
    assert schedule.progress(10**6, 1e9) == 0
    assert schedule.stage(0.0) == 1
    assert schedule.learning_rate(10**6, 0.0) == Recipe().learning_rate


def test_settings_of_another_network_are_refused() -> None:
    with pytest.raises(UsageError, match="deepdeblur has no such setting"):
        change_recipe(RECIPES["paper"], ["channels=[8]"])
    assert change_recipe(RECIPES["paper"], ["network=compact", "channels=[8]"]).channels == (8,)
    with pytest.raises(UsageError, match="nafnet has no such setting"):
        change_recipe(RECIPES["default"], ["network=nafnet", "unshuffle=4"])


def test_settings_without_an_effect_are_refused() -> None:
    with pytest.raises(UsageError, match="milestones: the schedule trapezoid has none"):
        change_recipe(Recipe(), ["milestones=[0.5]"])
    with pytest.raises(UsageError, match="discriminator: without an adversarial loss"):
        change_recipe(Recipe(), ["discriminator=paper"])
    changed = change_recipe(Recipe(), ["schedule=step", "milestones=[0.5]", "adversarial=1e-4"])
    assert change_recipe(changed, ["discriminator=paper"]).milestones == (0.5,)


@pytest.mark.parametrize(("scales", "blocks"), [(1, 59), (2, 29), (3, 19)])
def test_the_papers_networks_have_120_convolutions(scales: int, blocks: int) -> None:
    with torch.device("meta"):
        network = build_generator(replace(RECIPES["paper"], scales=scales))
    assert network.config.encoder_blocks == (blocks,)
    kernels = [m for name, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(kernels) - (scales - 1) == 120  # beside those that hand on to the next level


def test_a_runs_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    recipe = change_recipe(Recipe(), ["channels=[8,8]", "motion.zoom=0"])
    config = RunConfig(data=("/a", "/b=0.5"), recipe=recipe, steps=7)
    (tmp_path / "config.json").write_text(config.to_json())
    assert RunConfig.load(tmp_path / "config.json") == config
    other = replace(config, minutes=3.0, recipe=replace(recipe, batch=4))
    assert config.differences(other) == {"minutes": (None, 3.0), "batch": (8, 4)}
    (tmp_path / "config.json").write_text('{"data": []}')
    with pytest.raises(UsageError, match="damaged"):
        RunConfig.load(tmp_path / "config.json")
