"""Videos: restoring them frame by frame, with everything else they hold.

`restore_video` is the way in; `probe` says what a file holds. Nothing here knows the network:
the caller gives a function that restores one frame.
"""

from deblurcli.videos.info import CONTAINERS, VIDEO_SUFFIXES, VideoInfo, probe
from deblurcli.videos.restoring import VideoResult, restore_video

__all__ = [
    "CONTAINERS",
    "VIDEO_SUFFIXES",
    "VideoInfo",
    "VideoResult",
    "probe",
    "restore_video",
]
