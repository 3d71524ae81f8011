"""Clips to make pairs from: videos, and folders of numbered frames.

A clip's frames come upright, in order, and each says whether it directly follows the one before:
across a gap or a cut nothing can be averaged.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli.errors import DeblurError, NothingToDoError, UsageError, cannot_read
from deblurcli.io import media, photos
from deblurcli.io.videos import probe
from deblurcli.io.videos.info import fraction_of
from deblurcli.io.videos.pixels import pixels_of
from deblurcli.io.videos.reading import VideoReader
from deblurcli.io.videos.restoring import read_ahead

_FRAMES_AHEAD = 4
# A cut: the mean difference of two frames, as a share of the range, is at least this…
_CUT_DIFFERENCE = 0.1
# …and so many times that of the two frames before.
_CUT_RATIO = 4.0


@dataclass(frozen=True)
class Frame:
    """One frame of a clip: (H, W, 3) sRGB, upright. It follows the one before where it is of the
    same size and depth, and there is neither a gap nor a cut between them."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    follows: bool


@dataclass(frozen=True)
class Clip:
    """A video, or a folder of frames."""

    name: str  # of the sequence that is made from it
    source: Path  # the video, or the folder
    files: tuple[Path, ...] = ()  # the frames of a folder, in order
    fps: Fraction | None = None  # as the video says
    frame_count: int | None = None  # how many there should be, where that is known

    def frames(self) -> Iterator[Frame]:
        """Decodes frame by frame. Raises DeblurError for one that can't be read and, at the end,
        where a part of the video was damaged."""
        pictures = (Frame(photos.read(path).pixels, follows=True) for path in self.files)
        kind: object = None
        before: NDArray[np.float64] = np.zeros(0)
        usual = _CUT_DIFFERENCE / 2  # before anything is known of the clip
        for frame in pictures if self.files else self._video_frames():
            few = frame.pixels[::8, ::8] / np.iinfo(frame.pixels.dtype).max
            follows = frame.follows and kind in (None, (frame.pixels.shape, frame.pixels.dtype))
            if kind and follows:  # where a clip was edited, two frames differ far more than usual
                difference = float(np.abs(few - before).mean())
                follows = difference <= max(_CUT_DIFFERENCE, _CUT_RATIO * usual)
                usual = difference
            yield replace(frame, follows=follows)
            kind, before = (frame.pixels.shape, frame.pixels.dtype), few

    def _video_frames(self) -> Iterator[Frame]:
        before: Fraction | None = None
        with (
            closing(VideoReader(self.source, upright=True)) as reader,
            closing(read_ahead(reader.steps(), _FRAMES_AHEAD)) as steps,
        ):
            for step in steps:
                frame = step.frame
                if frame is None:
                    break
                time = (frame.pts or 0) * (fraction_of(frame.time_base) or Fraction(0))
                # A frame that was dropped in recording leaves a gap as well.
                gap = before is not None and self.fps and (time - before) * self.fps > 1.5
                yield Frame(pixels_of(frame), not gap)
                before = time
            damage = reader.damage()
        if damage:
            raise DeblurError(self.source, "; ".join(damage), "pairs were made from the rest of it")


def find_clips(
    sources: Sequence[Path], leave_out: Iterable[Path] = ()
) -> tuple[list[Clip], list[DeblurError]]:
    """The clips that the user named, and why some of them can't be used: videos, folders of
    numbered frames, or those in folders at any depth, but for the ones to leave out. Raises
    NothingToDoError where nothing is found and nothing failed, UsageError for two of one name."""
    clips: list[Clip] = []
    failures: list[DeblurError] = []
    for source in sources:
        videos, folders = {source: source.stem}, []
        if source.is_dir():
            try:
                files = media.find(source, recursive=True, videos=True, leave_out=leave_out)
            except OSError as error:
                raise cannot_read(source, error) from error
            videos = {
                path: "-".join(path.relative_to(source).with_suffix("").parts)
                for path in files
                if media.kind_of(path) == "video"
            }
            for folder in dict.fromkeys(path.parent for path in files):
                frames = media.find(folder)
                if media.frame_numbers(frames):
                    name = "-".join(folder.relative_to(source).parts) or source.resolve().name
                    folders.append(Clip(name, folder, tuple(frames), frame_count=len(frames)))
        for path, name in videos.items():
            try:
                info = probe(path)
                clips.append(Clip(name, path, fps=info.fps, frame_count=info.frame_count))
            except DeblurError as error:
                failures.append(error)
        clips += folders
    if not clips and not failures:
        reason = "no videos and no folders of numbered frames there"
        remedy = "give a video, or a folder of frames such as 000001.png, 000002.png"
        raise NothingToDoError(", ".join(map(str, sources)), reason, remedy)
    named: dict[str, Clip] = {}
    for clip in clips:
        other = named.setdefault(clip.name, clip)
        if other is not clip:
            reason = f"would have the name {clip.name}, as {other.source}"
            remedy = "rename one, or give them in two runs with different -o"
            raise UsageError(clip.source, reason, remedy)
    return clips, failures
