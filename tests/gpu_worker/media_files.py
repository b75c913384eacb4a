"""Files that ffmpeg's command line cannot make, and what tests read out of files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests import samples

SUBTITLES = [(0.2, 0.3, "Good <i>day</i>"), (0.6, 0.2, "Grüße, 世界")]
CREATED = "2019-05-04T10:11:12.000000Z"


def rich_file(path: Path) -> Path:
    """A Matroska file with two sound tracks, all kinds of subtitles, chapters, tags, a cover and a font."""
    cover = path.with_suffix(".png")
    Image.new("RGB", (32, 24), (200, 30, 30)).save(cover)
    with (
        av.open(str(samples.path("pal_25.mp4"))) as film,
        av.open(str(samples.path("two_tracks.mkv"))) as second,
        av.open(str(path), "w") as output,
    ):
        output.metadata.update(
            {"title": "A film", "artist": "Somebody", "creation_time": CREATED, "MOOD": "calm"}
        )
        chapters = [("One", 0, 800), ("Two", 800, 2000)]
        output.set_chapters(
            [
                {
                    "id": number,
                    "start": start,
                    "end": end,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for number, (title, start, end) in enumerate(chapters)
            ]
        )
        video = output.add_stream_from_template(film.streams.video[0])
        sounds = {}
        for stream, language, title in (
            (second.streams.audio[0], "eng", "Main"),
            (second.streams.audio[1], "fre", "Commentaire"),
        ):
            sounds[stream.index] = output.add_stream_from_template(stream)
            sounds[stream.index].metadata.update({"language": language, "title": title})
        texts = [(output.add_mux_stream("subrip"), "ger"), (output.add_mux_stream("webvtt"), "spa")]
        pictures = output.add_mux_stream("hdmv_pgs_subtitle")
        for track, language in [*texts, (pictures, "jpn")]:
            track.time_base = Fraction(1, 1000)
            track.metadata["language"] = language
        output.add_attachment("font.ttf", "font/ttf", b"not really a font")
        output.add_attachment("cover.png", "image/png", cover.read_bytes())
        for packet in film.demux(video=0):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        for packet in second.demux(audio=(0, 1)):
            if packet.size:
                packet.stream = sounds[packet.stream_index]
                output.mux(packet)
        for track, _ in [*texts, (pictures, "")]:
            for start, length, text in SUBTITLES:
                content = b"\x80\x00\x00" if track is pictures else text.encode()
                written: av.Packet[Any] = av.Packet(content)
                written.stream, written.time_base = track, Fraction(1, 1000)
                written.pts = written.dts = round(start * 1000)
                written.duration = round(length * 1000)
                output.mux(written)
    return path


def packets(path: Path, kind: str, number: int = 0) -> list[tuple[Fraction, bytes]]:
    """The packets of one track with their moments in the file, in seconds."""
    with av.open(str(path)) as container:
        stream = [one for one in container.streams if one.type == kind][number]
        found = [packet for packet in container.demux(stream) if packet.size]
        return [((packet.pts or 0) * packet.time_base, bytes(packet)) for packet in found]


def contents(path: Path, kind: str, number: int = 0) -> list[bytes]:
    """The bytes of one track, packet by packet."""
    return [content for _, content in packets(path, kind, number)]


def samples_of(path: Path, number: int = 0) -> np.ndarray:
    """A sound track as 32-bit samples `[channels, n]`."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s32p")
        frames = container.decode(container.streams.audio[number])
        return np.concatenate(
            [part.to_ndarray() for frame in frames for part in resampler.resample(frame)], axis=1
        )


def luma(frame: av.VideoFrame) -> np.ndarray:
    """The numbers of a planar frame's first plane `[height, width]`."""
    plane = frame.planes[0]
    kind = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    rows = np.frombuffer(plane, kind).reshape(frame.height, -1)
    return rows[:, : frame.width]


def blurred(picture: np.ndarray) -> np.ndarray:
    """The means of blocks of 4 x 4 pixels: how edges of chroma are interpolated does not count."""
    height, width = (side // 4 for side in picture.shape[:2])
    blocks = picture[: 4 * height, : 4 * width].reshape(height, 4, width, 4, -1)
    return blocks.mean(axis=(1, 3))
