"""How much of the network's time is its convolutions.

    python benchmarks/convolutions.py [--weights FILE] [--size 720x1280] [--rounds 7]
        [--against COMMIT]

Restores a picture of random pixels, then runs nothing but the same convolutions on tensors of the
same shapes and number formats, in turn in one process: in fp32, bf16 and, on x86 CPUs, int8 with
bf16 beside it. Prints the medians in seconds and their ratio: 1 would be a network that consists of
convolutions alone. With --against, the network as it was at another commit is timed in the same
turns, and how far the outputs are apart is printed, too.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

REPOSITORY = Path(__file__).parents[1]
X86 = platform.machine().lower() in ("x86_64", "amd64")
CONVOLUTIONS = [torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default]
if X86:
    CONVOLUTIONS.append(torch.ops.onednn.qconv2d_pointwise.default)


class Convolutions(TorchDispatchMode):
    """Remembers every convolution that is computed, with arguments of its own to repeat it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Tensor]] = []
        self.features: dict[object, Tensor] = {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        options = options or {}
        if function in CONVOLUTIONS:
            features, *rest = arguments
            # One for all of a shape: in the network, too, it was in the cache a moment ago.
            key = (features.shape, features.dtype)
            own = self.features.setdefault(key, features.clone())
            self.calls.append(functools.partial(function, own, *rest, **options))
        return function(*arguments, **options)


def load_network(weights: str, commit: str | None, precision: str) -> Callable[[Tensor], Tensor]:
    """The network in channels-last memory, with the code of this tree or of another commit."""
    if commit is None:
        path = str(REPOSITORY)
    else:
        path = tempfile.mkdtemp()
        archive = subprocess.run(
            ["git", "archive", commit, "deblurcli", "weights", "pyproject.toml"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files_of_commit:
            files_of_commit.extractall(path, filter="data")
    for name in [name for name in sys.modules if name.split(".")[0] == "deblurcli"]:
        del sys.modules[name]
    sys.path.insert(0, path)
    try:
        hub = importlib.import_module("deblurcli.weights.hub")
        files = importlib.import_module("deblurcli.weights.files")
        network, _ = files.load_weights(hub.find(weights))
        network = network.to(memory_format=torch.channels_last)
        if precision == "int8":
            generator = importlib.import_module("deblurcli.models.generator")
            if hasattr(generator, "quantised"):
                network = generator.quantised(network)
            else:  # an earlier commit's
                generator.quantise(network)
    finally:
        sys.path.remove(path)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--size", default="720x1280", help="rows x columns of the picture")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", metavar="COMMIT", help="time the network of that commit, too")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    image = torch.rand(1, height, width, 3).permute(0, 3, 1, 2)  # channels-last
    for precision in ("fp32", "bf16", "int8") if X86 else ("fp32", "bf16"):
        networks = {"network": load_network(options.weights, None, precision)}
        if options.against:
            against = load_network(options.weights, options.against, precision)
            networks[options.against] = against
        half = nullcontext() if precision == "fp32" else torch.autocast("cpu", torch.bfloat16)
        with torch.inference_mode(), half, Convolutions() as convolutions:
            outputs = [network(image) for network in networks.values()]
        count = len(convolutions.calls) // len(networks)
        bare = convolutions.calls[:count]
        runs: dict[str, Callable[[], object]] = {
            name: functools.partial(network, image) for name, network in networks.items()
        }
        runs["convolutions alone"] = lambda bare=bare: [call() for call in bare]
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        with torch.inference_mode():
            for round_ in range(options.rounds):
                # Forwards and backwards, so that none profits from what went before it.
                for name, run in list(runs.items())[:: 1 if round_ % 2 else -1]:
                    start = time.perf_counter()
                    is_half = precision != "fp32" and name != "convolutions alone"
                    with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
                        run()
                    seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        print(f"{precision}, {width}x{height}, {torch.get_num_threads()} threads; convolutions are")
        for name, median in medians.items():
            ratio = medians["convolutions alone"] / median
            least = min(seconds[name])
            print(f"  {name:<20} {median:6.3f} s (least {least:.3f})  {100 * ratio:3.0f} % of it")
        if options.against:
            print(f"  outputs differ by at most {(outputs[0] - outputs[1]).abs().max():.2g}")


if __name__ == "__main__":
    main()
