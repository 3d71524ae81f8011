"""Recipes: what may be changed, how rates fall, and what the paper's own one says."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from deblurcli.config import RECIPES, Recipe, change_recipe
from deblurcli.data.dataset import parse_source
from deblurcli.data.degradations import draw_degradation
from deblurcli.errors import UsageError

pytest.importorskip("accelerate", reason="needs the extra 'train'")
from deblurcli.training.schedule import Schedule


@pytest.mark.parametrize(
    "setting",
    [
        *("nothing=1", "batch", "batch=many", "motion.speed=1", "loss=psnr", "optimizer=sgd"),
        *("batch=0", "early_batch=0", "patch_px=0", "reuse=0", "scales=0", "unshuffle=0"),
        *("channels=[]", 'channels=["a"]', "channels=[8,0]", "learning_rate=0", "noise=NaN"),
        *("learning_rate=Infinity", "jpeg=1.1", "motion.objects=-1", "motion.path_px=-50"),
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
