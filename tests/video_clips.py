"""Small clips made with ffmpeg, and ffprobe as the independent judge of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="ffmpeg and ffprobe, the independent judges, are not installed",
)

COUNTER = "testsrc2=s=160x120:r=25:d=1"
TONE = "sine=440:d=1"


def same(pixels: NDArray[Any]) -> NDArray[Any]:
    """A restorer that changes nothing."""
    return pixels


def brighter(pixels: NDArray[Any]) -> NDArray[Any]:
    """A restorer whose work can be seen."""
    top = np.iinfo(pixels.dtype).max
    return (pixels // 2 + top // 2).astype(pixels.dtype)


def ffmpeg(*words: object) -> None:
    """Runs ffmpeg quietly, replacing outputs."""
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, words)], check=True)


@dataclass
class Probed:
    """What ffprobe says about a file."""

    streams: list[dict[str, Any]]
    format: dict[str, Any]
    chapters: list[dict[str, Any]] = field(default_factory=list)

    def only(self, kind: str) -> dict[str, Any]:
        (stream,) = [s for s in self.streams if s["codec_type"] == kind]
        return stream

    @property
    def video(self) -> dict[str, Any]:
        return next(s for s in self.streams if s["codec_type"] == "video")

    @property
    def rotation(self) -> int | None:
        sides = self.video.get("side_data_list", [])
        return next((side["rotation"] for side in sides if "rotation" in side), None)


def run(*words: object) -> bytes:
    return subprocess.run(list(map(str, words)), check=True, capture_output=True).stdout


def ffprobe(path: Path) -> Probed:
    """Asks ffprobe, counting the frames by decoding all of them."""
    wanted = ("-count_frames", "-show_streams", "-show_format", "-show_chapters")
    return Probed(**json.loads(run("ffprobe", "-v", "error", "-of", "json", *wanted, path)))


def packet_times(path: Path, stream: str, entry: str = "pts_time") -> list[float]:
    """The times of the packets of one stream, sorted, by ffprobe."""
    wanted = ("-select_streams", stream, "-show_entries", f"packet={entry}")
    told = run("ffprobe", "-v", "error", "-of", "csv=p=0", *wanted, path).decode().split()
    return sorted(float(line.strip(",")) for line in told if line.strip(","))


def stream_hash(path: Path, stream: str) -> str:
    """A hash of the bytes of one stream's packets, by ffmpeg."""
    wanted = ("-map", f"0:{stream}", "-c", "copy", "-f", "hash", "-")
    return run("ffmpeg", "-nostdin", "-v", "error", "-i", path, *wanted).decode()


def decode(path: Path, size: tuple[int, int], *, count: int = 3) -> NDArray[np.uint8]:
    """The first frames as ffmpeg shows them, upright, in RGB: (count, H, W, 3)."""
    width, height = size
    exact = ("-sws_flags", "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp")
    wanted = ("-frames:v", count, *exact, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    data = run("ffmpeg", "-nostdin", "-v", "error", "-i", path, *wanted)
    return np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)


def decode_rgba(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """All frames as ffmpeg shows them, with their transparency: (count, H, W, 4)."""
    wanted = ("-pix_fmt", "rgba", "-f", "rawvideo", "-")
    data = run("ffmpeg", "-nostdin", "-v", "error", "-i", path, *wanted)
    return np.frombuffer(data, np.uint8).reshape(-1, size[1], size[0], 4)
