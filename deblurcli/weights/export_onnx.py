"""Handing a network to other runtimes, as ONNX; docs/weights.md describes the model."""

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deblurcli.errors import AnyPath, DeblurError, not_installed
from deblurcli.io.files import atomic_output
from deblurcli.models.generator import extend
from deblurcli.models.network import RestorationNetwork
from deblurcli.models.registry import kind_of
from deblurcli.weights.manifest import METADATA_KEY, ModelCard

MAX_DIFFERENCE = 1e-3  # to PyTorch, in units of the full range
ONNX_MEMORY = 2.4  # times PyTorch's is ONNX Runtime's, measured on the default network
_CHECKED_SIZES = ((1, 64, 96), (1, 45, 67), (2, 33, 30), (1, 1, 1))  # batch, height, width


def export_onnx(
    network: RestorationNetwork,
    card: ModelCard,
    target: AnyPath,
    *,
    only_graph: bool = False,
    overwrite: bool = False,
) -> float:
    """Writes `network`, on the CPU in float32, as one ONNX file with free batch, height and width.

    Before it gets its name it is run with ONNX Runtime on images of several sizes: the largest
    difference to PyTorch, in units of the full range, is returned. `card` goes into the metadata,
    with all that restoring in tiles has to know. `only_graph` is for `deblurcli.backends.onnx`:
    without the parameters, and without clamping to [0, 1], which comes after tiles are joined.
    Raises DeblurError if the extra is missing, the file exists or can't be written, or the exported
    model does not give what the network gives.
    """
    target = Path(target)
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise not_installed(target, ", ".join(missing), "onnx", DeblurError)
    import onnx
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of its own insides
    free = torch.export.Dim.DYNAMIC
    with (
        atomic_output(target, overwrite=overwrite) as part,
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        # An example of batch size 1 would fix that, one that needs no padding would leave it out.
        example = (torch.rand(2, 3, 71, 93, generator=torch.Generator().manual_seed(0)),)
        whole = _WholeImage(network, clamped=not only_graph).eval()
        try:
            program = torch.export.export(
                whole, example, dynamic_shapes={"blurred": {0: free, 2: free, 3: free}}
            )
            exported = torch.onnx.export(
                program, dynamo=True, input_names=["blurred"], output_names=["sharp"], verbose=False
            )
        except Exception as error:  # of many kinds, whatever in the network is not traced
            reason = f"PyTorch can't export {network.config.body} ({type(error).__name__})"
            raise DeblurError(target, reason, "restore with --backend torch") from error
        assert exported is not None
        for value in (*exported.model.graph.inputs, *exported.model.graph.outputs):
            for dim, name in ((0, "batch"), (2, "height"), (3, "width")):
                if value.shape is not None:
                    value.shape[dim] = name
        kind = kind_of(network.config)
        tiles = {
            "overlap_px": kind.overlap_px,
            "alignment_px": network.alignment_px,
            "bytes_per_pixel": ONNX_MEMORY * kind.bytes_per_pixel(network, torch.float32),
        }
        told = ModelCard() if only_graph else card
        about = {"network": network.config.to_json(), "card": told.__dict__, "tiles": tiles}
        exported.model.metadata_props[METADATA_KEY] = json.dumps(about)
        exported.save(part, external_data=False)
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        random = torch.Generator().manual_seed(1)
        difference = 0.0
        for count, height, width in _CHECKED_SIZES:
            blurred = torch.rand(count, 3, height, width, generator=random)
            (got,) = session.run(["sharp"], {"blurred": blurred.numpy()})
            expected = whole(blurred).numpy()
            same_shape = got.shape == expected.shape
            seen = float(np.abs(got - expected).max()) if same_shape else float("inf")
            difference = max(difference, seen)
        if not difference <= MAX_DIFFERENCE:
            reason = f"the exported model differs from PyTorch's by {difference:.2g} of the range"
            remedy = "try other versions of PyTorch, onnxscript and onnxruntime"
            raise DeblurError(target, reason, remedy)
        if only_graph:  # the parameters have to be given to ONNX Runtime
            model = onnx.load(part)
            for tensor in model.graph.initializer:
                if tensor.name.startswith("network."):
                    tensor.ClearField("raw_data")
                    tensor.data_location = onnx.TensorProto.EXTERNAL
                    tensor.external_data.add(key="location", value="parameters")
            model.graph.ClearField("value_info")
            for piece in (model.graph, *model.graph.node, *model.graph.initializer):
                piece.ClearField("metadata_props")  # which line of our code it is from, and so on
            part.write_bytes(model.SerializeToString())
    return difference


class _WholeImage(nn.Module):
    """The network with its padding written so that sizes may stay unknown: extend by as much as
    could ever be needed, then cut."""

    def __init__(self, network: RestorationNetwork, *, clamped: bool) -> None:
        super().__init__()
        self.network, self.clamped = network, clamped

    def forward(self, blurred: Tensor) -> Tensor:
        height, width = blurred.shape[-2:]
        multiple, mirrored = self.network.alignment_px, self.network.pads_mirrored
        padded = extend(blurred, 2, 0, multiple - 1, mirrored=mirrored)
        padded = extend(padded, 3, 0, multiple - 1, mirrored=mirrored)
        rows = multiple * ((height + multiple - 1) // multiple)
        columns = multiple * ((width + multiple - 1) // multiple)
        sharp: Tensor = self.network(padded[:, :, :rows, :columns])
        sharp = sharp[:, :, :height, :width]
        return sharp.clamp(0, 1) if self.clamped else sharp
