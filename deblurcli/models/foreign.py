"""Other people's networks, rebuilt by spandrel (github.com/chaiNNer-org/spandrel, extra ``zoo``),
which knows the architecture by the names and shapes of the parameters."""

import importlib
import sys
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from deblurcli.models.config import ForeignConfig
from deblurcli.models.network import RestorationNetwork

if TYPE_CHECKING:
    import spandrel


class ForeignNetwork(RestorationNetwork):
    """A network of others, `model`, which restores RGB images at their own size."""

    def __init__(self, descriptor: "spandrel.ImageModelDescriptor[nn.Module]") -> None:
        super().__init__()
        self.model = descriptor.model
        self.config = ForeignConfig(str(descriptor.architecture.id))
        kernels = (p for p in self.model.parameters() if p.ndim == 4)
        self.features_per_pixel = float(next(kernels).shape[0])
        # How far its inside reduces the picture; not all that spandrel knows say it.
        halvings = len(getattr(self.model, "encoders", ()))
        self.alignment_px = max(descriptor.size_requirements.multiple_of, 2**halvings)
        self._descriptor = descriptor

    def forward(self, blurred: Tensor) -> Tensor:
        restored: Tensor = self._descriptor(blurred)
        return restored


def load_foreign(parameters: Mapping[str, Tensor]) -> ForeignNetwork:
    """The network that has these parameters, on the CPU in float32, in evaluation mode. Raises
    ValueError, with words for the user, if no known network has them, or none that deblurs RGB
    photos, and ImportError if the extra is not installed."""
    spandrel = import_spandrel()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what PyTorch will drop one day
            descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(
                spandrel.canonicalize_state_dict(dict(parameters))
            )
    except spandrel.UnsupportedModelError:
        known = sorted(str(a.architecture.id) for a in spandrel.MAIN_REGISTRY)
        text = f"of no architecture that spandrel {spandrel.__version__} knows ({', '.join(known)})"
        raise ValueError(text) from None
    except (RuntimeError, KeyError, ValueError, AssertionError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"its parameters fit no network ({detail})") from error
    name, purpose = descriptor.architecture.name, descriptor.purpose
    if purpose != "Restoration" or not isinstance(descriptor, spandrel.ImageModelDescriptor):
        tasks = {"SR": "upscaling", "FaceSR": "faces", "Inpainting": "filling holes"}
        task = tasks.get(purpose, purpose)
        raise ValueError(f"{name}, a network for {task}, not for restoration")
    scale, channels = descriptor.scale, (descriptor.input_channels, descriptor.output_channels)
    if (scale, *channels) != (1, 3, 3):
        text = f"{name} from {channels[0]} to {channels[1]} channels at scale {scale}"
        raise ValueError(f"{text}, not from RGB to RGB at scale 1")
    network = ForeignNetwork(descriptor)
    network.float().eval().requires_grad_(False)
    return network


def build_nafnet(
    channels: tuple[int, ...], encoder_blocks: tuple[int, ...], decoder_blocks: tuple[int, ...]
) -> ForeignNetwork:
    """NAFNet (Chen et al., ECCV 2022), untrained. `channels` is one number, the features at full
    size; each depth has twice as many. Blocks are per depth, from full size down, on the way up one
    number fewer; empty: as its authors trained it on GOPRO, and 1 each on the way up. Raises
    ValueError if they don't fit each other, ImportError if the extra is not installed."""
    import_spandrel()
    arch = importlib.import_module("spandrel.architectures.NAFNet")
    *down, middle = encoder_blocks or (1, 1, 1, 28, 1)
    up = [*decoder_blocks] or [1] * len(down)
    if len(channels) != 1 or not down or len(up) != len(down) or 0 in up:
        text = "NAFNet takes channels=[N], two or more encoder_blocks, and one decoder_blocks fewer"
        raise ValueError(text)
    network = arch.NAFNet(
        width=channels[0], enc_blk_nums=down, middle_blk_num=middle, dec_blk_nums=up[::-1]
    )
    return load_foreign(network.state_dict())


def import_spandrel() -> ModuleType:
    """spandrel with the architectures of spandrel-extra-arches."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        # torchvision from PyPI is built for CUDA and breaks beside a PyTorch for CPUs. Two of
        # spandrel's networks, for faces and holes, import names from it that no other needs.
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            absent = sys.modules[name] = ModuleType(name)
            absent.__getattr__ = lambda _: None  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what PyTorch will drop one day
            spandrel = importlib.import_module("spandrel")
            if find_spec("spandrel_extra_arches") is not None:
                importlib.import_module("spandrel_extra_arches").install(ignore_duplicates=True)
    finally:
        if getattr(sys.modules.get("torchvision"), "__file__", None) is None:  # our stand-in
            for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
                del sys.modules[name]
    return spandrel
