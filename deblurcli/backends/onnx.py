"""Networks that ONNX Runtime runs on the CPU, in processes that never import PyTorch.

A graph is a network's ONNX model without its parameters, so that one serves all weights files of a
configuration. That of the default network comes with the package; others are made once, where
PyTorch is, and kept. What ``deblur weights export`` writes holds both.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli.devices import CPU_BUDGET_BYTES, Precision
from deblurcli.errors import DeviceError, WeightsError, logger, not_installed
from deblurcli.models.config import OWN_BODIES
from deblurcli.weights import hub, manifest


class OnnxBackend:
    """What a `TorchBackend` is, with ONNX Runtime on the CPU; `card` is the weights' own."""

    device = "cpu"
    precision = Precision("fp32", "ONNX Runtime computes networks in nothing else here")
    max_tile_px = 1024

    def __init__(self, weights: Path) -> None:
        """Loads an ONNX model of ``deblur weights export``, or a weights file and its graph. Raises
        UsageError if ONNX Runtime is not installed, WeightsError if the file is damaged or of
        another program, or there is no graph for it."""
        try:
            import onnxruntime
        except ImportError:
            raise not_installed("--backend onnx", "onnxruntime", "onnx") from None
        options = onnxruntime.SessionOptions()
        threads = os.environ.get("OMP_NUM_THREADS", "")
        options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
        # Threads that wait in busy loops take the cores from other programs, and the arena
        # keeps the memory of the largest tile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4  # what it has to say comes as an exception
        model = weights
        self._held: dict[str, object] = {}  # parameters, with whose memory the session computes
        if weights.suffix != ".onnx":
            model = find_graph(weights)
            from safetensors.numpy import load_file

            graph = model.read_bytes()
            for name, array in manifest.current_names(load_file(weights)).items():
                # Not those that take no part, such as what makes a coarser level's picture.
                if (full_name := f"network.{name}").encode() in graph:
                    values = array.astype(np.float32)
                    self._held[full_name] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
            options.add_external_initializers([*self._held], [*self._held.values()])
        try:
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
            told = self._session.get_modelmeta().custom_metadata_map
            about = json.loads(told[manifest.METADATA_KEY])
            tiles = about["tiles"]
            self.overlap_px = int(tiles["overlap_px"])
            self.alignment_px = int(tiles["alignment_px"])
            self._bytes_per_pixel = float(tiles["bytes_per_pixel"])
            self.card = manifest.ModelCard.from_json(about["card"])
            if model != weights:
                _, self.card = manifest.read_header(weights)
        except KeyError as error:
            reason = f"not a model that deblurcli exported, or an old one (no {error})"
            raise WeightsError(model, reason, "export it anew: deblur weights export") from None
        except Exception as error:  # ONNX Runtime's have no class in common
            raise manifest.damaged(model, error) from error

    @staticmethod
    def check(device: str, precision: str) -> None:
        """Raises DeviceError for a device or precision that ONNX Runtime is not used with."""
        if device not in ("auto", "cpu") or precision not in ("auto", "fp32"):
            wish = device if device not in ("auto", "cpu") else precision
            raise DeviceError(wish, "ONNX Runtime is used on CPUs in fp32", "use --backend torch")

    # As `TorchBackend.forward` and `max_pixels`.
    def forward(self, blurred: NDArray[np.float32]) -> NDArray[np.float32] | None:
        images, restored = np.ascontiguousarray(blurred.transpose(0, 3, 1, 2)), None
        try:
            restored = self._session.run(["sharp"], {"blurred": images})[0].transpose(0, 2, 3, 1)
        except Exception as error:  # of a class that only onnxruntime's inside names
            if "alloc" not in str(error).lower():
                raise
        return restored

    def max_pixels(self) -> int:
        return int(CPU_BUDGET_BYTES / self._bytes_per_pixel)


def find_graph(weights: Path) -> Path:
    """The graph for a weights file, made first if it has to be; raises WeightsError where there is
    no PyTorch to make it."""
    is_ours, name = False, ""
    if weights.suffix not in manifest.CHECKPOINT_SUFFIXES:
        network, _ = manifest.read_header(weights)
        is_ours, name = network["body"] in OWN_BODIES, manifest.graph_name(network)
    for folder in hub.places().values():
        if name and (folder / name).is_file():
            return folder / name
    # A configuration of others' does not say all of their network.
    if not is_ours or find_spec("torch") is None or find_spec("onnxscript") is None:
        raise WeightsError(
            weights,
            "there is no graph of its network for ONNX Runtime",
            "where PyTorch is: deblur weights export FILE FILE.onnx, then --weights FILE.onnx",
        )
    from deblurcli.weights.export_onnx import export_onnx
    from deblurcli.weights.files import load_weights

    logger.warning("%s: making the graph for ONNX Runtime, once; this can take a minute", name)
    folder = hub.storage_folder()
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(*load_weights(weights), folder / name, only_graph=True, overwrite=True)
    return folder / name
