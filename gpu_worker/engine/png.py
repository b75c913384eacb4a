"""PNG results: a sequence as a ZIP, or a single picture.

A sequence's ZIP holds `frames/00000001.png` and on, `timestamps.txt` with the moment of each frame in
milliseconds (mkvmerge's "timestamp format v2"), and `sound.mka` where the source has sound. Nothing is
compressed a second time. A segment is the same without sound, its moments in `ticks.json`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Final

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.stills import with_profile

_TICKS: Final = "ticks.json"
_COPY_BYTES: Final = 1 << 20


class PngFile:
    """One segment of a PNG sequence. `first_frame` is the number of its first frame in the result."""

    def __init__(self, path: Path, result_format: ResultFormat, *, first_frame: int) -> None:
        self._zip = zipfile.ZipFile(path, "w")
        self._number = first_frame
        self._ticks: list[int] = []
        self._end = 0
        self._encoder = _encoder(result_format)

    def write(self, frame: VideoFrame, ticks: int, length: int) -> None:
        """Encodes a frame."""
        self._ticks.append(ticks)
        self._end = ticks + length
        frame.pts = ticks
        self._add(frame)

    def finish(self) -> None:
        """Writes what the encoder holds back, and the moments."""
        self._add(None)
        self._zip.writestr(_TICKS, json.dumps({"ticks": self._ticks, "end": self._end}))
        self._zip.close()

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def _add(self, frame: VideoFrame | None) -> None:
        for packet in self._encoder.encode(frame):
            self._number += 1
            self._zip.writestr(f"frames/{self._number:08d}.png", bytes(packet))


def _encoder(result_format: ResultFormat) -> VideoCodecContext:
    encoder = VideoCodecContext.create("png", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height = result_format.width, result_format.height
    encoder.pix_fmt = result_format.pixel_format
    encoder.time_base = result_format.time_base
    encoder.options = result_format.options()
    colors = result_format.written_colors
    encoder.color_primaries, encoder.color_trc = colors.primaries, colors.transfer
    encoder.colorspace, encoder.color_range = colors.matrix, colors.color_range
    return encoder


def join_sequence(
    segments: Sequence[Path], result: Path, *, time_base: Fraction, start_ticks: int, sound: Path | None
) -> int:
    """Puts segments into one ZIP, numbered from 1, and returns the number of frames.

    `start_ticks` is the moment that becomes 0.
    """
    num_frames = 0
    moments = ["# timestamp format v2"]
    with zipfile.ZipFile(result, "w") as joined:
        for segment in segments:
            with zipfile.ZipFile(segment) as archive:
                for ticks in json.loads(archive.read(_TICKS))["ticks"]:
                    moments.append(f"{float((ticks - start_ticks) * time_base * 1000):.6f}")
                for name in _frames(archive):
                    num_frames += 1
                    with archive.open(name) as picture:
                        _add(joined, f"frames/{num_frames:08d}.png", picture)
        joined.writestr("timestamps.txt", "\n".join(moments) + "\n")
        if sound is not None:
            with sound.open("rb") as content:
                _add(joined, "sound.mka", content)
    return num_frames


def only_picture(segments: Sequence[Path], result: Path, *, profile: bytes = b"") -> None:
    """Writes the first picture of the segments as a file of its own, with an ICC profile where there is one."""
    with zipfile.ZipFile(segments[0]) as archive:
        picture = archive.read(_frames(archive)[0])
    result.write_bytes(with_profile(picture, profile) if profile else picture)


def _frames(archive: zipfile.ZipFile) -> list[str]:
    return sorted(name for name in archive.namelist() if name.startswith("frames/"))


def _add(archive: zipfile.ZipFile, name: str, content: IO[bytes]) -> None:
    # The length of sound is not known to be below 2 GiB.
    with archive.open(name, "w", force_zip64=True) as member:
        copyfileobj(content, member, _COPY_BYTES)
