"""What may be wished of a clip, in one object from the command line to the encoder."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int | None], None]
"""Told after each frame how many are done, and how many there are if that is known."""


@dataclass(frozen=True)
class ClipOptions:
    """The user's wishes for clips, and how a run goes about them.

    Attributes:
        fps: frames per second of a folder of numbered frames; None is 30.
        codec, crf, preset: of the encoder, as `choose_encoding` takes them; None is our choice.
        start, end: the part to restore, in seconds of playing time.
        side_by_side: write each frame twice as wide: as it was, and restored; upright.
        to_frames: write a folder of frames instead of a video.
        suffix: of those frames, ``".png"``, or ``".jpg"`` (of high quality).
        strip: leave out tags (but languages), telemetry and cover pictures.
        overwrite: the target may be replaced.
        restored_by: names all that decides what becomes of a frame, such as weights and strength.
            Where it is given, a run that ends early keeps what it has done in a folder
            ``TARGET.part``, and the same call goes on from there.
    """

    fps: float | None = None
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    start: float | None = None
    end: float | None = None
    side_by_side: bool = False
    to_frames: bool = False
    suffix: str = ".png"
    strip: bool = False
    overwrite: bool = False
    progress: Progress | None = None
    restored_by: str | None = None
