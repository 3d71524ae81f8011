"""An hour's work survives: what is encoded is kept beside the target until all is done.

A video is encoded in segments of so many frames, each by an encoder of its own, so that the file
is the same whether the run was interrupted or not. The packets of each finished segment lie in a
folder ``TARGET.part`` with a description of the input and the settings. A later run with the same
description takes them instead of restoring those frames again.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import filelock
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from deblurcli.errors import logger

SEGMENT_FRAMES = 250
"""Frames of a segment: what a run loses at most. H.264 and HEVC begin anew as often by themselves:
shorter ones would cost bytes (100 frames 14 % on a quiet clip)."""

_PACKET = struct.Struct("<qqq?I")  # pts, dts, duration, is_keyframe, bytes of data


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
        count: how many an earlier run has finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = len(list(folder.glob("segment-??????")))

    def load(self, number: int) -> list[EncodedPacket]:
        """The packets of a finished segment, in the order of the encoder."""
        data, place, packets = self._path(number).read_bytes(), 0, []
        while place < len(data):
            pts, dts, duration, is_keyframe, size = _PACKET.unpack_from(data, place)
            place += _PACKET.size + size
            payload = data[place - size : place]
            packets.append(EncodedPacket(pts, dts, duration, is_keyframe, payload))
        return packets

    def save(self, number: int, packets: Sequence[EncodedPacket]) -> None:
        """Keeps a segment; on the disk before it gets its name.

        Raises:
            OSError: the disk is full, or gone.
        """
        new = self._path(number).with_suffix(".new")
        with new.open("wb") as file:
            for p in packets:
                file.write(_PACKET.pack(p.pts, p.dts, p.duration, p.is_keyframe, len(p.data)))
                file.write(p.data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path(number))

    def save_state(self, number: int, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Keeps what the frames after a segment need of those before; only of the last two."""
        new = self._folder / "state.new"
        save_file(dict(state), new)
        new.replace(self._state_path(number))
        self._state_path(number - 2).unlink(missing_ok=True)

    def load_state(self, number: int) -> dict[str, NDArray[np.float32]]:
        """What `save_state` kept; empty where it is gone."""
        try:
            return load_file(self._state_path(number))
        except (OSError, SafetensorError):
            return {}

    def _path(self, number: int) -> Path:
        return self._folder / f"segment-{number:06}"

    def _state_path(self, number: int) -> Path:
        return self._folder / f"state-{number:06}.safetensors"


@contextmanager
def open_segments(
    source: Path, target: Path, part: Path, restored_by: str, output: Sequence[str]
) -> Iterator[SegmentStore | None]:
    """Gives the store beside `target`, with what an earlier run of the same description left.

    What another description left is removed, with a warning. On success the folder goes; on any
    exception it stays if there is a segment in it.

    Args:
        source, target: the file that is restored, and the file or folder that is written.
        part: the unfinished file itself: a run that was killed left its own, which is removed.
            An unfinished folder lies in the store.
        restored_by, output: names all that decides how the frames are restored and written.

    Yields:
        The store; None where another run is writing the same target, or no folder can be made.
    """
    folder = target.with_name(f"{target.name}.part")
    lock, note = filelock.FileLock(folder / "lock"), folder / "description.txt"
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except (OSError, filelock.Timeout):
        yield None
        return
    is_done = False
    try:
        status = source.stat()
        wanted = json.dumps(
            {
                "input": os.fspath(source.absolute()),
                "bytes": status.st_size,
                "modified_ns": status.st_mtime_ns,
                "ffmpeg": av.__version__,
                "restored_by": restored_by,
                "output": output,
                "segment_frames": SEGMENT_FRAMES,
            }
        )
        before = ""
        with suppress(OSError, ValueError):
            before, unfinished = note.read_text("utf-8").splitlines()
            Path(json.loads(unfinished)).unlink(missing_ok=True)
        if before != wanted and (stale := list(folder.glob("segment-*"))):
            logger.warning("%s: begins anew: the input or the settings changed", target)
            for path in stale:
                path.unlink()
        note.write_text(f"{wanted}\n{json.dumps(os.fspath(part.absolute()))}\n", "utf-8")
        store = SegmentStore(folder)
        if not store.count and part.parent == folder:
            shutil.rmtree(part, ignore_errors=True)
        if store.count:
            frames = store.count * SEGMENT_FRAMES
            logger.warning("%s: goes on after %d frames of an earlier run", target, frames)
        yield store
        is_done = True
    finally:
        is_empty = not any(folder.glob("segment-*"))
        lock.release()
        if is_done or is_empty:
            with suppress(OSError):
                shutil.rmtree(folder)
