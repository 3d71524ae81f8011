"""Nothing in a training step makes the host wait for a GPU, shown without one.

Fake tensors compute shapes and devices only. Those that stand for the GPU's are on the device
"meta" here; a tensor left on the CPU by mistake can't be combined with them, and every copy
between both and every number that is read back can be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data as pictures
from torch import nn
from torch._functorch import config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from deblurcli.config import Recipe, change_recipe
from deblurcli.data import dataset, degradations, synthesis
from deblurcli.data.dataset import BatchRenderer, PictureStore, Source, TrainingDataset
from deblurcli.data.layouts import find_pairs

pytest.importorskip("accelerate", reason="needs the extra 'train'")
from accelerate import Accelerator

from deblurcli.training.train_step import TrainedNetworks, build_generator, train_step

GPU = torch.device("meta")


class WatchGPU(TorchDispatchMode):
    """Lists what would make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.copies = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        aten = torch.ops.aten
        if function is aten._local_scalar_dense.default and args[0].device == GPU:
            self.waits.append("a number was read")
        result = function(*args, **kwargs)
        if function in (aten._to_copy.default, aten.copy_.default):
            source = args[0] if function is aten._to_copy.default else args[1]
            blocking = not kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            if source.device != result.device:
                self.copies += 1
                if blocking:
                    self.waits.append(f"a copy of {tuple(source.shape)} from {source.device}")
        return result


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    for module in (dataset, degradations, synthesis):  # without pinning, which wants a real GPU
        monkeypatch.setattr(
            module,
            "send",
            lambda array, device: torch.from_numpy(array).to(device, non_blocking=True),
        )
    monkeypatch.setattr(nn.Module, "to", lambda module, *args, **kwargs: module)
    degradations.jpeg_constants.cache_clear()
    with (
        functorch_config.patch(fake_tensor_allow_meta=True),
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        yield mode
    degradations.jpeg_constants.cache_clear()


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer=muon", "jpeg=0.9"],
        ["optimizer=adamw", "accumulate=2", "saturation=hsv", "rounded=false", "loss=mse"],
    ],
)
def test_no_step_waits_for_the_gpu(
    settings: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for name in ("photo.png", "blur/1.png", "sharp/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pictures.astronaut()).save(tmp_path / name)
    sources = [
        Source(photos=(tmp_path / "photo.png",)),
        Source(pairs=tuple(find_pairs(tmp_path))),
    ]
    recipe = change_recipe(
        Recipe(),
        [
            *("batch=4", "early_share=0", "scales=2", "patch_px=64", "channels=[16,16]", "reuse=2"),
            "noise=0",  # fake tensors know no generators of random numbers
            *("motion.path_px=20", "motion.defocus=0.5", "motion.patterns=0.3", *settings),
        ],
    )
    store = PictureStore([path for source in sources for path in source.paths])
    decoded = [store[number] for number in range(len(store.paths))]
    drawn = TrainingDataset(sources, store, recipe, 0, crop_here=False)
    steps = [drawn.draw(number) for number in range(2)]
    with torch.device("meta"):
        generator = build_generator(recipe)
    accelerator = Accelerator(cpu=True)

    mode: FakeTensorMode = request.getfixturevalue("fake_gpu")
    request.getfixturevalue("monkeypatch").setattr(accelerator.state, "device", GPU)
    for module in generator.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=GPU))
    renderer = BatchRenderer(recipe, GPU)
    renderer.pictures = [mode.from_tensor(picture).to(GPU) for picture in decoded]
    networks = TrainedNetworks(recipe, accelerator, generator)
    with WatchGPU() as watch:
        for step in steps:
            blurred, sharp = renderer.render(step)
            losses = train_step(networks, blurred, sharp, 1e-3)
    assert watch.waits == []
    assert watch.copies > 2  # what was drawn, in each step
    assert blurred.shape == sharp.shape == (4, 3, 64, 64)
    assert {loss.device for loss in losses} == {GPU}

    with WatchGPU() as watch:  # it does see what it looks for
        torch.ones(3).to(GPU)
        with pytest.raises(Exception, match="_local_scalar_dense"):
            losses.content.item()
        with pytest.raises(Exception, match=r"same device|different devices"):
            _ = blurred + torch.ones(64)
    assert len(watch.waits) == 2
