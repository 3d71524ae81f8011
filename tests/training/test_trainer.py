"""The training loop: it learns, resumes exactly, shares work among processes, fails cleanly."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data as pictures
from skimage.color import hsv2rgb, rgb2hsv

from deblurcli.cli import main
from deblurcli.config import RECIPES, MotionRange, Recipe, RunConfig, change_recipe
from deblurcli.data.dataset import (
    Augmentation,
    BatchRenderer,
    PictureStore,
    Source,
    StepData,
    TrainingDataset,
    augment,
)
from deblurcli.data.layouts import find_pairs, find_pictures
from deblurcli.errors import DeblurError, WeightsError
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.foreign import import_spandrel, load_foreign
from deblurcli.models.generator import MultiScaleGenerator, gaussian_pyramid
from deblurcli.weights.files import load_weights

pytest.importorskip("accelerate", reason="needs the extra 'train'")
from deblurcli.training.checkpoint import RunFolder
from deblurcli.training.optimizers import make_optimizer, orthogonalize
from deblurcli.training.progress import TrainingStatus, draw_curves
from deblurcli.training.trainer import Trainer
from deblurcli.training.validation import Validation

TINY = Recipe(
    channels=(16, 16, 16),  # wide enough for Muon to have something to do
    batch=2,
    patch_px=64,
    early_share=0.5,
    early_batch=4,
    early_patch_px=32,
    reuse=2,
    warmup_steps=2,
    motion=MotionRange(path_px=8),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee"):
        Image.fromarray(getattr(pictures, name)()).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pairs of a kind: a picture and its mean with shifted copies."""
    folder = tmp_path_factory.mktemp("pairs")
    sharp = pictures.chelsea()
    blurred = np.mean([np.roll(sharp, k, axis=1) for k in range(-4, 5)], axis=0).astype("uint8")
    for kind, image in (("blur", blurred), ("sharp", sharp)):
        (folder / kind).mkdir()
        Image.fromarray(image).save(folder / kind / "chelsea.png")
    return folder


@pytest.fixture
def sources(photos: Path, pairs: Path) -> list[Source]:
    return [
        Source(photos=tuple(find_pictures(photos)), weight=2),
        Source(pairs=tuple(find_pairs(pairs)), weight=1),
    ]


def make_trainer(
    sources: list[Source],
    folder: Path,
    steps: int | None,
    recipe: Recipe = TINY,
    initial: MultiScaleGenerator | None = None,
    *,
    resume: bool = False,
    **settings: int,
) -> Trainer:
    config = RunConfig(
        recipe=recipe, steps=steps, seed=settings.pop("seed", 5), track="none", **settings
    )
    run = RunFolder(folder)
    run.prepare(config, resume=True)
    return Trainer(config, sources, run, cpu=True, initial=initial, resume=resume)


def parameters(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.networks.generator.parameters()])


def test_learns_to_remove_a_blur(pairs: Path, tmp_path: Path) -> None:
    recipe = replace(
        TINY,
        channels=(16, 16),
        scales=2,
        batch=4,
        patch_px=48,
        early_share=0.0,
        noise=0.0,
        jpeg=0.0,
        colour=False,
        ema=0.9,
        learning_rate=2e-3,
        warmup_steps=20,
    )
    trainer = make_trainer([Source(pairs=tuple(find_pairs(pairs)))], tmp_path, 80, recipe)
    validate = Validation(find_pairs(pairs), device="cpu")
    # An untrained network changes hardly anything.
    ((kind, untrained),) = validate(trainer.networks.generator)
    assert untrained == pytest.approx(validate.measure_blurred()[kind], abs=1.0)
    trainer.run()
    assert validate(trainer.networks.ema_model)[0][1] > untrained + 0.2


def test_an_interrupted_run_equals_an_uninterrupted_one(
    sources: list[Source], tmp_path: Path
) -> None:
    whole = make_trainer(sources, tmp_path / "whole", 8)
    whole.run(report_every=2)

    for stop in (3, 5):  # within the early patches, and after them
        first = make_trainer(sources, tmp_path / f"{stop}", 8)

        def interrupt(status: TrainingStatus, first: Trainer = first, stop: int = stop) -> None:
            first.stop.asked = status.step == stop  # the next step is finished, then all is saved

        with pytest.raises(KeyboardInterrupt):
            first.run(report=interrupt, report_every=1)
        second = make_trainer(sources, tmp_path / f"{stop}", 8, seed=5, resume=True)
        assert second.step == stop + 1
        second.run()
        assert torch.equal(parameters(whole), parameters(second))
        means = (t.networks.ema_model.state_dict() for t in (whole, second))
        torch.testing.assert_close(*means, rtol=0, atol=0)
        for part in ("muon", "adam"):
            states = (t.networks.state_dict()["optimizer"][part]["state"] for t in (second, whole))
            assert len({len(state) for state in states}) == 1


def test_the_paper_recipe_trains_both_networks(sources: list[Source], tmp_path: Path) -> None:
    recipe = change_recipe(
        RECIPES["paper"],
        ["network=compact", "channels=[8,8,8]", "patch_px=64", "motion.path_px=6"],
    )
    assert (recipe.loss, recipe.adversarial, recipe.learning_rate) == ("mse", 1e-4, 5e-5)
    trainer = make_trainer(sources, tmp_path, 3, recipe)
    assert trainer.networks.adversarial_loss is not None
    before = (
        trainer.networks.adversarial_loss.discriminator.verdict.weight.clone(),
        parameters(trainer),
    )
    trainer.run()
    assert not torch.equal(
        before[0], trainer.networks.adversarial_loss.discriminator.verdict.weight
    )
    assert not torch.equal(before[1], parameters(trainer))
    again = make_trainer(sources, tmp_path, 4, recipe, resume=True)
    assert again.networks.adversarial_loss is not None
    assert torch.equal(
        again.networks.adversarial_loss.discriminator.verdict.weight,
        trainer.networks.adversarial_loss.discriminator.verdict.weight,
    )


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(
    sources: list[Source], tmp_path: Path
) -> None:
    trainer = make_trainer(sources, tmp_path, 20, validate_every=4)

    def poison(status: TrainingStatus) -> None:
        if status.step == 6:
            with torch.no_grad():
                next(trainer.networks.generator.parameters()).fill_(float("nan"))

    with pytest.raises(DeblurError, match="no longer a number"):
        trainer.run(report=poison, report_every=2)
    intact = make_trainer(sources, tmp_path, 20, resume=True)
    assert intact.step == 4
    assert parameters(intact).isfinite().all()


def test_a_damaged_picture_is_named(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    broken = tmp_path / "photos" / "broken.jpg"
    Image.fromarray(pictures.astronaut()).save(broken)
    broken.write_bytes(broken.read_bytes()[:9000])  # its header says all that is asked before
    sources = [Source(photos=(broken,))]
    for workers in (0, 1):
        trainer = make_trainer(sources, tmp_path / "run", 2, workers=workers)
        with pytest.raises(DeblurError, match=r"broken\.jpg"):
            trainer.run()


def test_checkpoints_of_others_are_refused(sources: list[Source], tmp_path: Path) -> None:
    make_trainer(sources, tmp_path / "run", 1).run()
    other = replace(TINY, optimizer="adam")
    with pytest.raises(WeightsError, match="of another version or recipe"):
        make_trainer(sources, tmp_path / "run", 2, other, resume=True)
    with pytest.raises(WeightsError, match="no checkpoint"):
        make_trainer(sources, tmp_path / "none", 2, resume=True)
    (tmp_path / "run" / "last.pt").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="damaged"):
        make_trainer(sources, tmp_path / "run", 2, resume=True)


def test_a_run_that_began_with_given_weights_goes_on_with_their_network(
    pairs: Path, tmp_path: Path
) -> None:
    """The authors' networks differ from ours in what no parameter's name or shape shows."""
    torch.manual_seed(0)
    given = GeneratorConfig("resnet", 2, (8,), (1,), kernel_px=5, value_range=255.0)
    sources = [Source(pairs=tuple(find_pairs(pairs)))]
    recipe = replace(RECIPES["paper"], early_share=0.0, patch_px=32, learning_rate=1e-9)
    run = RunFolder(tmp_path / "run")
    loss = make_trainer(sources, run.path, 2, recipe, MultiScaleGenerator(given)).run().loss
    network, card = load_weights(run.path / "last.safetensors")
    config = network.config
    assert config == given
    assert (card.recipe["network"], card.recipe["scales"]) == ("deepdeblur", 2)

    second = make_trainer(sources, run.path, 4, recipe, resume=True)
    assert second.run().loss == pytest.approx(loss, rel=0.5)  # other crops, the same network
    assert load_weights(run.path / "last.safetensors")[0].config == given


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated")  # in spandrel's NAFNet
def test_networks_of_others_are_trained_on(pairs: Path, tmp_path: Path) -> None:
    try:
        import_spandrel()
    except ImportError:
        pytest.skip("needs the extra 'zoo'")
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(0)
    given = load_foreign(NAFNet(width=8, enc_blk_nums=[1], dec_blk_nums=[1]).state_dict())
    sources = [Source(pairs=tuple(find_pairs(pairs)))]
    run = RunFolder(tmp_path / "run")
    first = make_trainer(sources, run.path, 2, initial=given)
    before = parameters(first)
    first.run()
    assert not torch.equal(parameters(first), before)
    assert load_weights(run.path / "last.safetensors")[0].config.body == "NAFNet"
    second = make_trainer(sources, run.path, 3, resume=True)
    assert torch.equal(parameters(second), parameters(first))
    assert second.run().step == 3


def test_settings_that_contradict_the_given_weights_are_refused(
    pairs: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(pairs), "--steps", "1", "-o", str(tmp_path / "run")]
    assert main([*words, "--weights", str(tiny_weights), "--set", "channels=[9,9]"]) == 2
    assert "describes another network" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_metrics_have_a_column_for_every_set_measured_so_far(
    sources: list[Source], tmp_path: Path
) -> None:
    trainer = make_trainer(sources, tmp_path, 6)
    trainer.stop.asked = True
    with pytest.raises(KeyboardInterrupt):  # before anything was measured
        trainer.run()
    for steps, score in ((3, ("a", 21.0)), (4, ("b", 22.0))):
        again = make_trainer(sources, tmp_path, steps, resume=True)
        again.run(lambda network, rank, processes, score=score: [score, score])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "3", "4"]
    assert [row["psnr_db:a"] for row in rows] == ["", "21.0", ""]
    assert [row["psnr_db:b"] for row in rows] == ["", "", "22.0"]
    assert all(float(row["gradient_norm"]) > 0 for row in rows)
    draw_curves(again.metrics, tmp_path / "curves.png", {"a": 20.0})

    finished = make_trainer(sources, tmp_path, 4, resume=True)
    status = finished.run()
    assert (status.step, status.progress, status.scores) == (4, 1.0, {"b": 22.0})


def test_weights_that_get_worse_are_never_best(sources: list[Source], tmp_path: Path) -> None:
    """Fine-tuning is measured before its first step, too."""
    trainer = make_trainer(sources, tmp_path, 4, validate_every=2)
    before = parameters(trainer)
    trainer.run(lambda network, rank, processes: [("a", 30.0 - trainer.step)])
    best, card = load_weights(tmp_path / "best.safetensors")
    saved = torch.cat([p.flatten() for p in best.parameters()])
    torch.testing.assert_close(saved, before, atol=1e-3, rtol=1e-3)  # in half precision
    assert (card.recipe["steps"], card.scores) == (0, {"a": {"psnr_db": 30.0}})
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "2", "4"]


def test_a_validation_that_fails_loses_nothing(sources: list[Source], tmp_path: Path) -> None:
    trainer = make_trainer(sources, tmp_path, 4, validate_every=3)

    def fail(network: object, rank: int, processes: int) -> list[tuple[str, float]]:
        if trainer.step == 0:
            return []
        raise DeblurError("val/1.png", "no such file", "check it")

    with pytest.raises(DeblurError, match="no such file"):
        trainer.run(fail)
    resumed = make_trainer(sources, tmp_path, 4, resume=True)
    assert resumed.step == 3


def test_a_network_that_makes_no_pictures_is_not_saved(
    sources: list[Source], tmp_path: Path
) -> None:
    trainer = make_trainer(sources, tmp_path, 4, validate_every=2)

    def fail(network: object, rank: int, processes: int) -> list[tuple[str, float]]:
        if trainer.step == 2:
            raise WeightsError("unnamed", "far from any picture", "use other weights")
        return [("a", 20.0)]

    with pytest.raises(DeblurError, match=r"come apart by step 2: .* learning_rate"):
        trainer.run(fail)
    assert make_trainer(sources, tmp_path, 4, resume=True).step == 0


def test_a_loss_that_rises_for_good_has_exploded(sources: list[Source], tmp_path: Path) -> None:
    trainer = make_trainer(sources, tmp_path, 100, replace(TINY, clip_norm=0.0))

    def blow_up(status: TrainingStatus) -> None:
        if status.step == 10:
            with torch.no_grad():
                trainer.networks.generator.levels[0].tail.weight.mul_(1e4)

    with pytest.raises(DeblurError, match=r"exploded at step 1\d"):
        trainer.run(report=blow_up, report_every=1)


def test_steps_of_few_pictures_may_differ_by_far(sources: list[Source], tmp_path: Path) -> None:
    """Of single still pictures the loss is next to nothing now and then."""
    recipe = replace(
        TINY, scales=1, batch=1, early_share=0.0, patch_px=32, reuse=1, loss="mse", channels=(8,)
    )
    recipe = replace(recipe, motion=replace(TINY.motion, still=0.5), noise=0.0, jpeg=0.0)
    losses: list[float] = []
    make_trainer(sources, tmp_path, 60, recipe).run(
        report=lambda status: losses.append(status.loss), report_every=1
    )
    assert max(losses) > 20 * min(losses)


def test_a_bad_validation_pair_is_named_before_training(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, size in (("blur", (40, 30)), ("sharp", (40, 40))):
        (tmp_path / "val" / kind).mkdir(parents=True)
        Image.new("RGB", size).save(tmp_path / "val" / kind / "1.png")
    words = ["train", "--data", str(pairs), "--val", str(tmp_path / "val"), "--steps", "1"]
    assert main([*words, "-o", str(tmp_path / "run")]) == 1
    assert "1.png: is 40x30 pixels, but" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_samples_of_deep_pictures_are_shown_with_8_bits(tmp_path: Path) -> None:
    deep = (pictures.chelsea().astype("uint16") * 257)[:64, :64]
    for kind in ("blur", "sharp"):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(tmp_path / kind / "1.tif", deep, photometric="rgb")
    network = MultiScaleGenerator(GeneratorConfig("unet", 1, (8,), (1,), unshuffle=2)).eval()
    samples = Validation(find_pairs(tmp_path), device="cpu").restore_samples(network)
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(samples[0, :, 128:], pictures.chelsea()[:64, :64])


def test_recipes_are_shown_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "paper", "--show-recipe"]) == 0
    assert json.loads(capsys.readouterr().out)["adversarial"] == 1e-4
    assert main(["train", "--steps", "1"]) == 2
    assert "give --data" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_checkpoint(sources: list[Source], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        narrow = replace(TINY, channels=(8, 8, 8))
        trainer = make_trainer(sources, small / "run", 4, narrow, validate_every=2)

        # The first checkpoint fits, the next one beside it does not.
        with pytest.raises(DeblurError, match="disk is full"):
            trainer.run()
        load_weights(small / "run" / "last.safetensors")
        resumed = make_trainer(sources, small / "run", 4, narrow, resume=True)
        assert resumed.step == 2
        assert not list((small / "run").glob("*.part"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_steps_are_a_pure_function_of_seed_and_number(sources: list[Source]) -> None:
    store = PictureStore([path for source in sources for path in source.paths])

    def step(**kwargs: int) -> StepData:
        return TrainingDataset(sources, store, TINY, 1, stage=0, **kwargs).draw(7)

    def pixels(data: StepData) -> dict[int, list[torch.Tensor]]:
        return {
            s.slot: [data.pixels[part:][: 3 * s.side_px**2] for part in s.parts]
            for s in data.samples
        }

    once, again = step(), step(first_step=7)
    shares = [step(rank=rank, processes=2) for rank in range(2)]
    assert [[s.slot for s in data.samples] for data in shares] == [[0, 1], [2, 3]]
    for data in (again, *shares):
        for slot, parts in pixels(data).items():
            for part, expected in zip(parts, pixels(once)[slot], strict=False):
                assert torch.equal(part, expected)
    # A run that begins at step 7 has no earlier pictures to reuse: it needs all of them.
    assert all(sample.parts for sample in again.samples)
    assert not all(sample.parts for sample in once.samples)


def test_pictures_are_cut_alike_by_workers_and_on_the_device(sources: list[Source]) -> None:
    recipe = replace(TINY, reuse=1)
    store = PictureStore([path for source in sources for path in source.paths])
    batches = []
    for cut in (True, False):
        data = TrainingDataset(sources, store, recipe, 3, crop_here=cut).draw(5)
        renderer = BatchRenderer(recipe, torch.device("cpu"), None if cut else store)
        batches.append(renderer.render(data))
    torch.testing.assert_close(*batches, atol=0, rtol=0)


def test_workers_share_what_is_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(photos.iterdir())
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    store = PictureStore([copy], shared=True)
    child = os.fork()
    if child == 0:
        try:
            assert store[0].numpy().any()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    copy.unlink()  # another process decoded it
    np.testing.assert_array_equal(store[0].numpy(), np.asarray(Image.open(path)))


def test_neighbours_in_a_batch_may_share_a_picture(photos: Path) -> None:
    source = Source(photos=tuple(find_pictures(photos)))
    store = PictureStore(source.paths)
    recipe = replace(TINY, batch=16, patches_per_picture=4, reuse=2)
    data = TrainingDataset([source], store, recipe, 1, crop_here=False).draw(6)
    drawn = [sample.parts[0].picture for sample in data.samples if sample.parts]
    assert len(drawn) == 8  # the other groups' turn comes in the next step
    assert all(len(set(drawn[n : n + 4])) == 1 for n in (0, 4))
    assert len({sample.parts[0] for sample in data.samples if sample.parts}) == 8


def test_augmentations_move_blurred_and_sharp_alike() -> None:
    images = torch.rand(2, 3, 8, 8)
    for turns in range(4):
        turned = Augmentation(flip=True, quarter_turns=turns, permutation=(2, 0, 1))
        pair, same = augment(torch.stack((images, images)), [turned, Augmentation()])
        torch.testing.assert_close(same, images)
        for image, result in zip(images, pair, strict=True):
            expected = torch.rot90(image.flip(-1), turns, (-2, -1))[[2, 0, 1]]
            torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_saturation_is_that_of_hsv_or_leaves_the_mean(factor: float) -> None:
    image = np.random.default_rng(3).integers(0, 256, (12, 12, 3)).astype(np.float32) / 255
    tensor = torch.from_numpy(image).permute(2, 0, 1)

    def saturated(hsv: bool) -> np.ndarray:
        (result,) = augment(tensor[None], [Augmentation(saturation=factor)], hsv=hsv)
        return np.asarray(result.permute(1, 2, 0))

    colours = rgb2hsv(image)
    colours[..., 1] *= factor
    # Values, not saturations, are cut off at the end, as in the authors' own code.
    np.testing.assert_allclose(saturated(hsv=True), hsv2rgb(colours).clip(0, 1), atol=1e-5)
    mean = image.mean(axis=-1, keepdims=True)
    expected = np.clip(mean + factor * (image - mean), 0, 1)
    np.testing.assert_allclose(saturated(hsv=False), expected, atol=1e-6)


@pytest.mark.parametrize("trained_on", [".", "sharp"], ids=["as pairs", "as sharp photos"])
def test_validation_pictures_are_never_trained_on(
    pairs: Path, tmp_path: Path, trained_on: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(pairs / trained_on), "--val", str(pairs), "--steps", "1"]
    small = ["--set", "patch_px=16", "--set", "motion.path_px=4"]
    assert main([*words, *small, "-o", str(tmp_path / "run")]) == 2
    assert "both trained on and validated on" in capsys.readouterr().err


def test_the_pyramid_of_a_patch_has_a_size_for_every_scale() -> None:
    sizes = [tuple(level.shape[-2:]) for level in gaussian_pyramid(torch.rand(1, 3, 64, 96), 3)]
    assert sizes == [(64, 96), (32, 48), (16, 24)]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_kernels_as_torchs_own(memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3), torch.nn.Conv2d(32, 48, 3), torch.nn.Conv2d(48, 16, 1)
    ).to(memory_format=memory)  # type: ignore[call-overload]
    recipe = Recipe(learning_rate=1e-2, weight_decay=0.1)
    optimizer = make_optimizer(recipe, network)
    kernels = [network[1].weight, network[2].weight]
    others = [network[0].weight, network[0].bias, network[1].bias, network[2].bias]
    before = [other.detach().clone() for other in others]
    matrices = [torch.nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in kernels]
    published = torch.optim.Muon(
        matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(3):
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        for matrix, kernel in zip(matrices, kernels, strict=True):
            assert kernel.grad is not None
            matrix.grad = kernel.grad.flatten(1).clone()
        optimizer.step()
        published.step()
        if step == 0:  # Adam's first step is its rate
            for other, then in zip(others, before, strict=True):
                assert (other.detach() - then).abs().max() == pytest.approx(0.4e-2, rel=1e-3)
    for matrix, kernel in zip(matrices, kernels, strict=True):  # which computes in bf16
        torch.testing.assert_close(kernel.flatten(1), matrix, atol=5e-4, rtol=0)


@pytest.mark.parametrize("smallest", [1e-2, 1e-4, 1e-6])
def test_muon_orthogonalizes_in_fp32(smallest: float) -> None:
    """Also where the rank is nearly lower; the published iteration in fp64 judges."""
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.normal(size=(24, 60)), full_matrices=False)
    matrix = torch.from_numpy(left * np.geomspace(1, smallest, 24) @ right)
    expected = matrix / matrix.norm()
    for _ in range(5):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (2.0315 * gram @ gram - 4.775 * gram) @ expected
    result = orthogonalize(matrix.float())
    assert torch.linalg.norm(result - expected) < 1e-3 * torch.linalg.norm(expected)
    torch.testing.assert_close(orthogonalize(matrix.T.float()), result.T)
    if smallest > 1e-3:  # others stay below, as the published iteration leaves them
        values = torch.linalg.svdvals(result)
        assert 0.6 < values.min() <= values.max() < 1.3


def test_muon_goes_on_where_it_was() -> None:
    def train(network: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            network.zero_grad()
            network(torch.randn(2, 16, 8, 8)).abs().mean().backward()
            optimizer.step()

    def start() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(9)
        network = torch.nn.Conv2d(16, 16, 3)
        return network, make_optimizer(Recipe(learning_rate=1e-2), network)

    whole = start()
    train(*whole, range(6))
    first, second = start(), start()
    train(*first, range(3))
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    train(*second, range(3, 6))
    assert torch.equal(whole[0].weight, second[0].weight)
    assert torch.equal(whole[0].bias, second[0].bias)
