"""Copies of results that browsers cannot play: ProRes, H.265 and numbered PNGs, as H.264 in 720 lines."""

from __future__ import annotations

import io
import logging
import subprocess
import zipfile
from fractions import Fraction
from pathlib import Path
from uuid import UUID

import av
import av.error
from django.db import transaction

from gpu_worker.contract import Output
from restorations import notifications, objects
from restorations.models import Restoration
from restorations.previews import encode_proxy
from restorations.stores.scratch import scratch_folder

logger = logging.getLogger(__name__)

#: The unit of a PNG sequence's moments, as `timestamps.txt` has them.
_MILLISECONDS = Fraction(1, 1000)


def make(restoration_id: UUID | str) -> None:
    """Stores a copy of a result that browsers play; a second call does nothing.

    A result that cannot be copied is downloaded and not played: its page says so.
    """
    wanted = Restoration.objects.filter(
        pk=restoration_id, status=Restoration.Status.SUCCEEDED, proxy_wanted_at__isnull=False
    )
    restoration = wanted.select_related("video", "workspace").first()
    if restoration is None:
        return
    key = f"{restoration.workspace_id}/proxies/{restoration.pk}.mp4"
    try:
        with scratch_folder() as folder, objects.local_copy(restoration.result_key) as result:
            objects.save_file(key, _encode(result, restoration, folder))
    except (
        subprocess.SubprocessError,
        av.error.FFmpegError,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
    ) as exc:
        logger.warning("no proxy restoration=%s error=%s", restoration.pk, exc)
        key = ""
    except objects.ObjectMissing:
        return
    with transaction.atomic():
        if wanted.update(proxy_key=key, proxy_wanted_at=None):
            notifications.restoration_changed(restoration)
    # Deleted meanwhile, or made by another process under the same key.
    if key and not Restoration.objects.filter(pk=restoration.pk, proxy_key=key).exists():
        objects.delete([key])


def _encode(result: Path, restoration: Restoration, folder: Path) -> Path:
    encoded, sound = folder / "proxy.mp4", None
    if restoration.output == Output.PNG:
        with zipfile.ZipFile(result) as archive:
            result, sound = _movie(archive, folder), _sound(archive, folder)
    encode_proxy(result, encoded, sound=sound, is_hdr=restoration.video.is_hdr)
    return encoded


def _sound(archive: zipfile.ZipFile, folder: Path) -> Path | None:
    return Path(archive.extract("sound.mka", folder)) if "sound.mka" in archive.namelist() else None


def _movie(archive: zipfile.ZipFile, folder: Path) -> Path:
    """Puts the pictures of a sequence, untouched, into one file at their moments."""
    movie = folder / "pictures.nut"
    names = sorted(name for name in archive.namelist() if name.startswith("frames/"))
    lines = archive.read("timestamps.txt").decode().splitlines()
    moments = [round(float(line)) for line in lines if not line.startswith("#")]
    with av.open(movie, "w", format="nut") as container:
        # ffmpeg rounds moments to the rate that a file announces.
        stream = container.add_stream("png", rate=1000)
        with av.open(io.BytesIO(archive.read(names[0]))) as first:
            shape = first.streams.video[0].codec_context
            stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, shape.pix_fmt
        stream.time_base = _MILLISECONDS
        for name, moment in zip(names, moments, strict=True):
            packet = av.Packet(archive.read(name))
            packet.stream, packet.time_base = stream, _MILLISECONDS
            packet.pts = packet.dts = moment
            packet.is_keyframe = True
            container.mux(packet)
    return movie
