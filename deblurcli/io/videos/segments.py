"""An hour's work survives: what is finished is kept beside the target until all is done.

A video is encoded in segments of so many frames, so that the file is the same whether the run was
interrupted or not. The packets of each finished segment, and what steadies the next one, lie in a
folder ``TARGET.part`` with a description of the input and the settings. A later run with the
same description takes them instead of restoring those frames again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import av
import filelock
import numpy as np
from numpy.typing import NDArray

from deblurcli.errors import logger

SEGMENT_FRAMES = 250
"""Frames of a segment: what a run loses at most. H.264 and HEVC begin anew as often by themselves:
shorter ones would cost bytes (100 frames 14 % on a quiet clip)."""


@dataclass(frozen=True)
class EncodedPacket:
    """A packet of the encoder, with times in ticks of the output's video."""

    pts: int
    dts: int
    duration: int
    is_keyframe: bool
    data: bytes


class SegmentStore:
    """The finished segments of one output, in a folder beside it.

    Attributes:
        folder: where they lie; None where there can be none.
        count: how many an earlier run has finished.
    """

    def __init__(self, folder: Path | None = None, *, keeps: bool = False) -> None:
        """Without `keeps` nothing is saved."""
        self.folder, self._keeps = folder, keeps
        self.count = len(list(folder.glob("segment-??????"))) if folder and keeps else 0

    def has(self, frame_number: int) -> bool:
        """Whether that frame, counted from 0, lies in a segment of an earlier run."""
        return frame_number // SEGMENT_FRAMES < self.count

    def load(self, number: int) -> list[EncodedPacket]:
        """The packets of a finished segment, in the order of the encoder."""
        assert self.folder is not None
        with np.load(self.folder / f"segment-{number:06}") as kept:
            heads, data = kept["heads"], kept["data"].tobytes()
        ends = np.cumsum(heads[:, 4])
        return [
            EncodedPacket(pts, dts, duration, bool(is_keyframe), data[end - size : end])
            for (pts, dts, duration, is_keyframe, size), end in zip(
                heads.tolist(), ends.tolist(), strict=True
            )
        ]

    def save(self, number: int, packets: Sequence[EncodedPacket]) -> None:
        """Keeps a segment; on the disk before it gets its name.

        Raises:
            OSError: the disk is full, or gone.
        """
        if self.folder is None or not self._keeps:
            return
        heads = [(p.pts, p.dts, p.duration, p.is_keyframe, len(p.data)) for p in packets]
        data = np.frombuffer(b"".join(p.data for p in packets), np.uint8)
        self._write(f"segment-{number:06}", {"heads": np.array(heads, np.int64), "data": data})

    def save_state(self, number: int, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Keeps what the frames after a segment need of those before; only of the last two.

        Raises:
            OSError: the disk is full, or gone.
        """
        if self.folder is None or not self._keeps:
            return
        self._write(f"state-{number:06}", state)
        (self.folder / f"state-{number - 2:06}").unlink(missing_ok=True)

    def _write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        assert self.folder is not None
        new = self.folder / f"new-{name}"  # packets and states are written by two threads
        with new.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / name)

    def load_state(self, number: int) -> dict[str, NDArray[np.float32]]:
        """What `save_state` kept; empty where it is gone."""
        try:
            assert self.folder is not None
            with np.load(self.folder / f"state-{number:06}") as kept:
                return dict(kept)
        except (OSError, ValueError, BadZipFile):
            return {}


@contextmanager
def open_segments(
    sources: Sequence[Path], target: Path, restored_by: str | None, output: Sequence[str]
) -> Iterator[SegmentStore]:
    """Gives the store beside `target`, with what an earlier run of the same description left.

    What another description left, or a run that was killed, is removed, the former with a warning.
    On success the folder goes; on any exception it stays if there is a segment in it.

    Args:
        sources, target: the files that are restored, and the file or folder that is written.
        restored_by, output: name all that decides how the frames are restored and written; with
            None nothing is kept.

    Yields:
        The store; without a folder where another run is writing the same target, or none can be
        made.
    """
    folder = target.with_name(f"{target.name}.part")
    lock, note = filelock.FileLock(folder / "lock"), folder / "description.json"
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except (OSError, filelock.Timeout):
        yield SegmentStore()
        return
    is_done = False
    try:
        stats = [(os.fspath(path.absolute()), path.stat()) for path in sources]
        inputs = [[name, status.st_size, status.st_mtime_ns] for name, status in stats]
        wanted = json.dumps([inputs, av.__version__, restored_by, *output, SEGMENT_FRAMES])
        stale = list(folder.glob("segment-*"))
        with suppress(OSError, ValueError):
            if note.read_text("utf-8") == wanted:
                stale = []
        if stale:
            logger.warning("%s: begins anew: the input or the settings changed", target)
        for path in (*stale, *target.parent.glob(f"{escape(target.name)}.[0-9]*-[0-9]*.part")):
            path.unlink(missing_ok=True)
        note.write_text(wanted, "utf-8")
        store = SegmentStore(folder, keeps=restored_by is not None)
        if store.count:
            frames = store.count * SEGMENT_FRAMES
            logger.warning("%s: goes on after %d frames of an earlier run", target, frames)
        yield store
        is_done = True
    finally:
        is_empty = not any(folder.glob("segment-*"))
        lock.release()
        if is_done or is_empty:
            shutil.rmtree(folder, ignore_errors=True)
