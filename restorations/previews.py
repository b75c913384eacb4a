"""What browsers show of a source: a poster, and a proxy when they cannot play the file itself."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from uuid import UUID

import imageio_ffmpeg
from django.conf import settings
from django.db import transaction

from restorations import notifications, objects
from restorations.models import Video
from restorations.stores.scratch import scratch_folder

logger = logging.getLogger(__name__)

_JPEG: Final = b"\xff\xd8\xff"
PROXY_SECONDS_LIMIT: Final = 25 * 60
#: Memory, seconds of all cores together, and the size of the copy: a stranger's file is read here, too.
_PROXY_LIMITS: Final = (8 * 2**30, 8 * PROXY_SECONDS_LIMIT, 64 * 2**30)


def save_poster(video: Video, picture: bytes) -> str:
    """Stores a JPEG and returns its key; without a picture, nothing."""
    if not picture.startswith(_JPEG):
        return ""
    key = f"{video.workspace_id}/posters/{video.pk}.jpg"
    objects.save(key, io.BytesIO(picture))
    return key


def make_proxy(video_id: UUID | str) -> None:
    """Stores a copy that browsers play: H.264 and AAC, upright, at most 720 lines, the same frames."""
    wanted = Video.objects.present().filter(pk=video_id, status=Video.Status.READY, proxy_key="")
    video = wanted.first()
    if video is None:
        return
    suffix = "png" if video.is_image else "mp4"
    key = f"{video.workspace_id}/proxies/{video.pk}.{suffix}"
    try:
        with (
            scratch_folder() as folder,
            objects.local_copy(video.storage_key) as source,
        ):
            encoded = folder / f"proxy.{suffix}"
            if video.is_image:
                _encode_picture(source, encoded)
            else:
                encode_proxy(source, encoded, is_hdr=video.is_hdr)
            objects.save_file(key, encoded)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        # The video can be restored all the same; only its own page cannot play it.
        logger.warning("no proxy video=%s error=%s", video.pk, exc)
        key = ""
    except objects.ObjectMissing:
        return
    with transaction.atomic():
        if wanted.update(proxy_key=key, proxy_wanted_at=None):
            notifications.video_changed(video)
    # Deleted meanwhile, or made by another process under the same key.
    if key and not Video.objects.filter(pk=video.pk, proxy_key=key).exists():
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
    arguments = []
    for file in (source, sound):
        arguments += ["-protocol_whitelist", "file", "-i", str(file)] if file else []
    arguments += ["-map", "0:V:0", "-map", "1:a:0?" if sound else "0:a:0?", "-vf", filters]
    arguments += ["-fps_mode", "passthrough", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20"]
    arguments += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "160k", "-ac", "2", "-movflags", "+faststart"]
    _run_confined([*arguments, str(target)])


def _encode_picture(source: Path, target: Path) -> None:
    """Writes a still picture as PNG, transparency kept."""
    _run_confined(
        ["-protocol_whitelist", "file", "-i", str(source), "-frames:v", "1", "-c:v", "png", str(target)]
    )


def _run_confined(arguments: list[str]) -> None:
    """Runs ffmpeg within limits and without network; raises `subprocess.SubprocessError`."""
    limits = [sys.executable, "-m", "restorations.probing.confinement", *map(str, _PROXY_LIMITS)]
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    # It becomes ffmpeg, so that a time-out ends ffmpeg; no key of ours goes to where a stranger's file is read.
    subprocess.run(
        [*limits, *program, *arguments],
        cwd=settings.BASE_DIR,
        env={"PATH": os.defpath},
        check=True,
        timeout=PROXY_SECONDS_LIMIT,
        capture_output=True,
    )
