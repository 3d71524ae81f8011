"""How fast training pictures come, and what in a training step makes the host wait.

    python benchmarks/training_feed.py --data PHOTOS/ --data GOPRO/ --workers 0 --workers 8

For every source alone and every number of workers: patches per second that the workers draw and
cut, the second time through (pictures are decoded then); and that the device renders of them. On a
GPU also with all pictures resident there. Then ten steps of the network, with everything in them
that made the host wait for the device: on a GPU as PyTorch's synchronisation debug mode tells, and
everywhere every number that was read from a tensor (``aten::_local_scalar_dense``), but for the
counters that Adam keeps on the CPU.
"""

import argparse
import collections
import time
import warnings
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from deblurcli.cli.train import find_data
from deblurcli.config import Recipe, RunConfig, change_recipe, load_recipe
from deblurcli.data.dataset import BatchRenderer, PictureStore, Source, TrainingDataset
from deblurcli.devices import choose_device
from deblurcli.training.train_step import TrainedNetworks, train_step


class CountHostReads(TorchDispatchMode):
    """Counts how often a number is read from a tensor that isn't one of `known`."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known, self.reads = known, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            self.reads += args[0].data_ptr() not in self.known
        return function(*args, **(kwargs or {}))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_feed(
    source: Source, note: str, recipe: Recipe, device: torch.device, workers: int, steps: int
) -> None:
    """Prints how many patches of a source are drawn and rendered in a second."""
    for cut in (True, False) if device.type == "cuda" else (True,):
        store = PictureStore(source.paths, shared=workers > 0)
        renderer = BatchRenderer(recipe, device, None if cut else store)
        dataset = TrainingDataset([source], store, recipe, 0, crop_here=cut)
        drawing = dataset.steps(workers, pin_memory=device.type == "cuda")
        list(islice(drawing, max(5, 2 * len(source.paths) // recipe.batch)))  # decodes
        start = time.perf_counter()
        data = list(islice(drawing, steps))
        drawn = steps * recipe.batch / (time.perf_counter() - start)
        renderer.render(dataset.draw(0))  # whatever is reused later on
        synchronise(device)
        start = time.perf_counter()
        for step in data:
            renderer.render(step)
        synchronise(device)
        rendered = steps * recipe.batch / (time.perf_counter() - start)
        print(
            f"{note}, {workers} workers, cut {'by them' if cut else 'on the device'}: "
            f"{drawn:.0f} patches/s drawn, {rendered:.0f} rendered",
            flush=True,
        )


def measure_steps(
    sources: list[Source], recipe: Recipe, device: torch.device, steps: int = 10
) -> None:
    """Prints how long steps take, and how often the host waited in them."""
    store = PictureStore([path for source in sources for path in source.paths])
    dataset = TrainingDataset(sources, store, recipe, 0)
    renderer = BatchRenderer(recipe, device)
    networks = TrainedNetworks(recipe, Accelerator(cpu=device.type == "cpu"))
    data = list(islice(dataset.steps(0, pin_memory=device.type == "cuda"), steps + 3))
    for step in data[:3]:
        train_step(networks, *renderer.render(step), 1e-4)
    # Adam counts its steps in tensors on the CPU, which nothing waits for.
    state = networks.optimizer.state_dict()
    optimizers = [state] if "state" in state else [part for part in state.values() if part]
    entries = [entry for part in optimizers for entry in part["state"].values()]
    counters = {entry["step"].data_ptr() for entry in entries if "step" in entry}
    synchronise(device)
    start = time.perf_counter()
    with CountHostReads(counters) as counted, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        for step in data[3:]:
            train_step(networks, *renderer.render(step), 1e-4)
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    queued = (time.perf_counter() - start) / steps
    synchronise(device)
    whole = (time.perf_counter() - start) / steps
    print(
        f"{steps} steps with rendering: {whole:.3f} s each, host done after {queued:.3f} s; "
        f"{counted.reads} host reads, {len(caught)} waits"
    )
    places = (f"{w.filename}:{w.lineno}: {str(w.message).splitlines()[0]}" for w in caught)
    for place, times in collections.Counter(places).items():
        print(f"  {times} times at {place}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    recipe = change_recipe(load_recipe(arguments.recipe), ["early_share=0", *arguments.settings])
    config = RunConfig(data=tuple(arguments.data), recipe=recipe)
    sources, _, notes = find_data(config)
    print(f"batch {recipe.batch}, {recipe.patch_px} px, reuse {recipe.reuse}, {device}")
    for source, note in zip(sources, notes, strict=True):
        for workers in arguments.workers or [0]:
            measure_feed(source, note, recipe, device, workers, arguments.steps)
    measure_steps(sources, recipe, device)


if __name__ == "__main__":
    main()
