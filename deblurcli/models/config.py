"""What networks are rebuilt from: configurations, as weights files hold them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

OWN_BODIES = ("resnet", "unet")  # of `MultiScaleGenerator`


@dataclass(frozen=True)
class NetworkConfig:
    """What a weights file says of its network."""

    body: str  # by this the registry finds it

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class GeneratorConfig(NetworkConfig):
    """All that is needed to rebuild a `MultiScaleGenerator` before loading its weights. Only a
    ``unet`` has `decoder_blocks`, `unshuffle`, `block` and `depths`."""

    body: Literal["resnet", "unet"]
    scales: int  # levels of the pyramid, the paper's K
    # Features at each depth, of half the resolution of the one before; a ``resnet`` has one.
    channels: tuple[int, ...]
    encoder_blocks: tuple[int, ...]  # at each depth on the way down
    decoder_blocks: tuple[int, ...] = ()  # on the way up, one number fewer
    kernel_px: int = 3
    unshuffle: int = 1  # pixel-unshuffle factor: the body works at 1/unshuffle of the resolution
    block: Literal["residual", "gated"] = "residual"
    value_range: float = 1.0  # span of pixel values inside: 255 for the weights of the authors
    # How many of the depths each level uses, finest level first; all where it is empty.
    depths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError if the configuration is invalid: it may come from any file."""
        depths = len(self.channels) if self.body == "unet" else 1
        counts = (self.scales, self.unshuffle, self.kernel_px, *self.channels, *self.encoder_blocks)
        sensible = (
            self.body in OWN_BODIES
            and self.block in ("residual", "gated")
            and all(type(n) is int and n >= 1 for n in counts)
            and self.scales <= 8
            and len(self.channels) == len(self.encoder_blocks) == depths >= 1
            and len(self.decoder_blocks) == depths - 1
            and (not self.depths or len(self.depths) == self.scales)
            and all(type(n) is int and 1 <= n <= depths for n in self.depths)
            and all(type(n) is int and n >= 0 for n in self.decoder_blocks)
            and self.kernel_px % 2 == 1
            and 0 < self.value_range < math.inf
            # A damaged file's numbers would keep us building for hours.
            and sum((*self.encoder_blocks, *self.decoder_blocks)) <= 1000
            and max((*self.channels, self.unshuffle, self.kernel_px)) <= 65536
        )
        if not sensible:
            raise ValueError("not the configuration of a network")

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> "GeneratorConfig":
        """Raises TypeError on unknown or missing fields, ValueError on senseless values."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)  # type: ignore[arg-type]  # __post_init__ looks at them


@dataclass(frozen=True)
class ForeignConfig(NetworkConfig):
    """Of another's network, whose architecture spandrel calls `body`."""

    gmacs: float | None = None  # multiply-accumulates for one 256×256 image, in 10⁹
