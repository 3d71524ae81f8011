"""An hour's work survives: what is finished is kept beside the target until all is done.

A video is encoded in segments of so many frames, so that the file is the same whether the run was
interrupted or not. The packets of each finished segment, and what steadies the next one, lie in a
folder ``TARGET.part``; a later run of the same input and settings takes them.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from zipfile import BadZipFile

import av
import cv2
import filelock
import numpy as np
from numpy.typing import NDArray

from deblurcli.errors import DeblurError, cannot_write, logger
from deblurcli.io.image import Image


class EncodedPacket(NamedTuple):
    """A packet of the encoder, with times in ticks of the output's video."""

    pts: int
    dts: int
    duration: int
    is_keyframe: bool
    data: bytes


class SegmentStore:
    """The finished segments of one output, in a folder beside it, if they are kept. `count` says
    how many an earlier run has finished."""

    segment_frames: ClassVar[int] = 250
    """What a run loses at most. H.264 and HEVC begin anew as often by themselves: shorter segments
    would cost bytes (of 100 frames: 14 % on a quiet clip)."""

    def __init__(self, folder: Path, *, is_kept: bool) -> None:
        self.folder, self._is_kept = folder, is_kept
        self.count = len(list(folder.glob("segment-??????"))) if is_kept else 0

    def has(self, frame_number: int) -> bool:
        """Whether that frame, counted from 0, lies in a segment of an earlier run."""
        return frame_number // self.segment_frames < self.count

    def load(self, number: int) -> list[EncodedPacket]:
        """The packets of a finished segment, in the order of the encoder."""
        with np.load(self.folder / f"segment-{number:06}") as kept:
            heads, data = kept["heads"].tolist(), io.BytesIO(kept["data"])
        return [
            EncodedPacket(pts, dts, duration, bool(is_keyframe), data.read(size))
            for pts, dts, duration, is_keyframe, size in heads
        ]

    def save(self, number: int, packets: Sequence[EncodedPacket]) -> None:
        """Keeps a segment; raises OSError where the disk is full, or gone."""
        heads = [(*packet[:4], len(packet.data)) for packet in packets]
        data = np.frombuffer(b"".join(p.data for p in packets), np.uint8)
        self._write(f"segment-{number:06}", {"heads": np.array(heads, np.int64), "data": data})

    def save_state(self, number: int, state: Mapping[str, Image]) -> None:
        """Keeps what the frames after a segment need of those before; only of the last two."""
        self._write(f"state-{number:06}", state)
        if self._is_kept:  # else the folder is another run's
            (self.folder / f"state-{number - 2:06}").unlink(missing_ok=True)

    def load_state(self, number: int) -> dict[str, Image]:
        """What `save_state` kept; empty where it is gone."""
        try:
            with np.load(self.folder / f"state-{number:06}") as kept:
                return dict(kept)
        except (OSError, ValueError, BadZipFile):
            return {}

    def _write(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes a file that is on the disk before it gets its name."""
        if not self._is_kept:
            return
        new = self.folder / f"new-{name}"  # packets and states are written by two threads
        with new.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / name)


@contextmanager
def open_segments(
    sources: Sequence[Path],
    target: Path,
    restored_by: str | None,
    output: Sequence[str],
    *,
    needs_folder: bool = False,
) -> Iterator[SegmentStore]:
    """Gives the store beside `target`, with what an earlier run of the same description left.

    What another description left, or a run that was killed, is removed, the former with a warning.
    On success the folder goes; on any exception it stays if there is a segment in it. Where another
    run is writing the same target, or no folder can be made or locked, nothing is kept; with
    `needs_folder`, as frames lie in it too, that is a DeblurError.

    Args:
        sources, target: the files that are restored, and the file or folder that is written.
        restored_by, output: name all that decides how the frames are restored and written; with
            None nothing is kept.
    """
    real = Path(os.path.realpath(target))
    folder = real.with_name(f"{real.name}.part")
    lock, note = filelock.FileLock(folder / "lock"), folder / "description.json"
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except (OSError, NotImplementedError) as error:  # the latter where there are no locks
        if isinstance(error, filelock.Timeout) and needs_folder:
            raise DeblurError(target, "is being written by another run", "wait for it") from error
        if needs_folder:
            raise cannot_write(target, OSError(*error.args)) from error
        yield SegmentStore(folder, is_kept=False)
        return
    is_done = False
    try:
        stats = [(os.fspath(path.absolute()), path.stat()) for path in sources]
        inputs = [[name, status.st_size, status.st_mtime_ns] for name, status in stats]
        length = SegmentStore.segment_frames
        versions = (av.__version__, cv2.__version__)
        wanted = json.dumps([inputs, versions, restored_by, *output, length])
        stale = list(folder.glob("segment-*"))
        with suppress(OSError, ValueError):
            if note.read_text("utf-8") == wanted:
                stale = []
        if stale:
            logger.warning("%s: begins anew: the input or the settings changed", target)
        parts = f"{escape(folder.stem)}.[0-9]*-[0-9]*.part"  # as `atomic_output` calls them
        for path in (*stale, *folder.parent.glob(parts)):
            path.unlink(missing_ok=True)
        note.write_text(wanted, "utf-8")
        store = SegmentStore(folder, is_kept=restored_by is not None)
        if store.count:
            frames = store.count * length
            logger.warning("%s: goes on after %d frames of an earlier run", target, frames)
        yield store
        is_done = True
    finally:
        has_segments = any(folder.glob("segment-*"))
        lock.release()
        if is_done or not has_segments:
            shutil.rmtree(folder, ignore_errors=True)
