"""Which frames a preview is made of. Pure arithmetic."""

from __future__ import annotations

from typing import Final

from gpu_worker.contract import Frames
from restorations.models import Video

SECONDS: Final = 3


def num_frames(video: Video) -> int:
    """Returns how many frames a preview of this video has; 0 when it is too short to have one."""
    wanted = max(1, round(SECONDS * video.rate))
    return wanted if not video.is_image and video.rate > 0 and wanted < video.num_frames else 0


def latest_start(video: Video) -> float:
    """Returns the last second at which a preview can begin, in tenths."""
    left = video.num_frames - num_frames(video)
    return int(10 * left / video.rate) / 10


def usual_start(video: Video) -> float:
    """Returns where a preview begins unless somebody says otherwise: in the middle, away from titles."""
    return round(latest_start(video) / 2, 1)


def frames_from(video: Video, seconds: float) -> Frames:
    """Returns the range that begins at a moment; where frames do not come evenly, near it."""
    length = num_frames(video)
    start = min(max(0, round(seconds * video.rate)), video.num_frames - length)
    return start, start + length
