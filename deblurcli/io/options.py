"""What may be wished of a clip, in one object from the command line to the encoder."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int | None], None]
"""Told after each frame, tile or picture how many are done, and how many there are if known."""


@dataclass(frozen=True)
class ClipOptions:
    """The user's wishes for clips, and how a run goes about them."""

    fps: float | None = None  # frames per second of a folder of numbered frames; None is 30
    codec: str | None = None  # FFmpeg's name of an encoder, or a short one; None is our choice
    crf: int | None = None  # this and `preset` are on the encoder's own scales
    preset: str | None = None
    start: float | None = None  # of the part to restore, in seconds of playing time
    end: float | None = None
    side_by_side: bool = False  # each frame twice as wide: as it was, and restored; upright
    to_frames: bool = False  # write a folder of frames instead of a video
    suffix: str = ".png"  # of those frames; or ".jpg", of high quality
    strip: bool = False  # leave out tags (but languages), telemetry and cover pictures
    overwrite: bool = False  # the target may be replaced
    progress: Progress | None = None
    # Names all that decides what becomes of a frame, such as weights and strength. If given, a run
    # that ends early keeps what it has in a folder TARGET.part, and the same call goes on there.
    restored_by: str | None = None
