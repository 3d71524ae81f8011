"""Videos: restoring their frames, with everything else they hold.

`restore_video` is the way in; `restore_animation`, `restore_frames` and `restore_to_frames` are
its sisters for other kinds of clips, and `probe` says what a file holds. Nothing here knows the
network: the caller gives a function that restores one frame.
"""

from deblurcli.io.videos.animations import ANIMATION_FORMATS, restore_animation
from deblurcli.io.videos.info import CONTAINERS, probe
from deblurcli.io.videos.restoring import restore_frames, restore_to_frames, restore_video

__all__ = [
    "ANIMATION_FORMATS",
    "CONTAINERS",
    "probe",
    "restore_animation",
    "restore_frames",
    "restore_to_frames",
    "restore_video",
]
