"""What browsers show of a source: a poster, and a proxy when they cannot play the file itself."""

from __future__ import annotations

import io
import logging
import subprocess
from pathlib import Path
from typing import Final
from uuid import UUID

import av
import av.error
import imageio_ffmpeg
from django.db import transaction
from PIL import Image

from restorations import notifications, objects
from restorations.models import Video
from restorations.stores.scratch import scratch_folder

logger = logging.getLogger(__name__)

POSTER_SIDE: Final = 640
PROXY_SECONDS_LIMIT: Final = 25 * 60


def make_poster(video: Video, file: Path, rotation: int) -> str:
    """Stores a picture from a second into the video and returns its key; without a picture, nothing."""
    picture = _picture(file)
    if picture is None:
        return ""
    # FFmpeg's angle is counter-clockwise, as Pillow's.
    upright = picture.rotate(rotation, expand=True)
    upright.thumbnail((POSTER_SIDE, POSTER_SIDE))
    encoded = io.BytesIO()
    upright.convert("RGB").save(encoded, "JPEG", quality=82)
    encoded.seek(0)
    key = f"{video.workspace_id}/posters/{video.pk}.jpg"
    objects.save(key, encoded)
    return key


def _picture(file: Path) -> Image.Image | None:
    try:
        with av.open(file, options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.video[0]
            shown: av.VideoFrame | None = None
            for frame in container.decode(stream):
                shown = frame
                # The first second is often black.
                if (frame.time or 0) - float((stream.start_time or 0) * (stream.time_base or 1)) >= 1:
                    break
            return shown.to_image() if shown else None  # type: ignore[no-untyped-call]
    except av.error.FFmpegError as exc:
        logger.info("no poster file=%s error=%s", file.name, exc)
        return None


def make_proxy(video_id: UUID | str) -> None:
    """Stores a copy that browsers play: H.264 and AAC, upright, at most 720 lines, the same frames."""
    video = Video.objects.present().filter(pk=video_id, status=Video.Status.READY, proxy_key="").first()
    if video is None:
        return
    key = f"{video.workspace_id}/proxies/{video.pk}.mp4"
    try:
        with (
            scratch_folder() as folder,
            objects.local_copy(video.storage_key) as source,
        ):
            encoded = folder / "proxy.mp4"
            encode_proxy(source, encoded, is_hdr=video.is_hdr)
            objects.save_file(key, encoded)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        # The video can be restored all the same; only its own page cannot play it.
        logger.warning("no proxy video=%s error=%s", video.pk, exc)
        return
    with transaction.atomic():
        if Video.objects.present().filter(pk=video.pk).update(proxy_key=key):
            notifications.video_changed(video)
        else:
            objects.delete([key])


#: HDR's brightness and colours brought into those of every screen.
_TO_SDR: Final = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)


def encode_proxy(source: Path, target: Path, *, sound: Path | None = None, is_hdr: bool = False) -> None:
    """Writes a copy that browsers play; `sound` is a file of its own where the source has none."""
    # ffmpeg rather than PyAV: turning, square pixels and resampled sound are one filter line there.
    scale = "scale='trunc(iw*sar*min(1,720/ih)/2)*2':'trunc(ih*min(1,720/ih)/2)*2',setsar=1"
    filters = f"{scale},{_TO_SDR}" if is_hdr else scale
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    for file in (source, sound):
        command += ["-protocol_whitelist", "file", "-i", str(file)] if file else []
    command += ["-map", "0:V:0", "-map", "1:a:0?" if sound else "0:a:0?", "-vf", filters]
    command += ["-fps_mode", "passthrough", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20"]
    command += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "160k", "-ac", "2", "-movflags", "+faststart"]
    subprocess.run([*command, str(target)], check=True, timeout=PROXY_SECONDS_LIMIT, capture_output=True)
