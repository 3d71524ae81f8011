"""Restores photos and videos that were blurred by motion.

The heart of the library is two lines:

    from deblurcli import Deblurrer
    sharp = Deblurrer.load().restore(blurred)   # (H, W, 3) uint8, uint16 or float32, sRGB

`Deblurrer` is imported on first use, because it needs torch, which takes seconds to load,
and ``deblur --help`` must not wait for it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deblurcli.deblurrer import Deblurrer

__all__ = ["Deblurrer", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Deblurrer":
        from deblurcli.deblurrer import Deblurrer

        return Deblurrer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
