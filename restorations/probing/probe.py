"""Reads one file with PyAV: what is in it, and can it be restored? Runs in a confined process."""

from __future__ import annotations

import io
import itertools
import logging
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any, Final

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream

from restorations.probing.facts import MAX_SIDE, MIN_SIDE, Facts, Unrestorable

logger = logging.getLogger(__name__)

#: Seconds for counting frames packet by packet; after that the container's own figure has to do.
COUNT_SECONDS: Final = 5.0
#: Seconds for finding a picture to show.
POSTER_SECONDS: Final = 2.5
POSTER_SIDE: Final = 640
#: Packets that a decoder gets to find its first picture: a damaged start is common on old tapes.
_FIRST_PACKETS: Final = 300
#: Bytes that FFmpeg asks for at once.
_BUFFER_BYTES: Final = 2**16

#: Formats that are lists of other files, or addresses: following them would read what nobody uploaded.
_PLAYLISTS: Final = {"hls", "concat", "dash", "sdp", "rtsp", "rtp", "applehttp", "imf", "webm_dash_manifest"}
#: Single pictures; FFmpeg calls the others `<codec>_pipe`.
_STILLS: Final = {"image2", "ico"}
#: How files begin that point to others, or hold others. FFmpeg would follow the first and guess at the second.
_POINTERS: Final = (
    b"#EXTM3U", b"ffconcat", b"[playlist]", b"[Reference]", b"RTSPtext", b"<asx", b"<ASX", b"<smil", b"v=0\r\n",
    b"v=0\no=", b"SMIL",
)  # fmt: skip
_ARCHIVES: Final = (
    b"PK\x03\x04", b"PK\x05\x06", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd", b"!<arch>\n",
)  # fmt: skip
#: MP4's names for pictures under a key.
_PROTECTED: Final = (b"encv", b"drmi")
_TABLE_BYTES: Final = 2**17
#: What FFmpeg tells of packets whose content has a key, such as that of MP4's common encryption.
_ENCRYPTION: Final = {"encryption_info", "encryption_init_info"}
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PAGES: Final = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<svg")


#: Opens the file anew, from its beginning.
Reopen = Callable[[], InputContainer]


@dataclass(frozen=True, slots=True)
class Timing:
    """Frames, seconds, and whether the frames come at uneven times."""

    num_frames: int
    seconds: float
    is_variable: bool


def probe(file: IO[bytes], *, size_bytes: int, max_seconds: float) -> tuple[Facts, bytes]:
    """Returns a file's facts and a small JPEG of it, empty when it has none to show. Raises `Unrestorable`."""
    if size_bytes == 0:
        raise Unrestorable("empty")
    _check_beginning(file.read(4096))
    asked: list[str] = []

    def refuse(url: str, _flags: int, _options: dict[str, str]) -> Any:
        # Whatever a file points to is not opened, not even beside it.
        asked.append(url)
        raise PermissionError("a file that was sent may not open others")

    def reopen() -> InputContainer:
        # Rather than seeking back, which streams without a container cannot.
        file.seek(0)
        options = {"protocol_whitelist": "none"}
        container = av.open(file, options=options, io_open=refuse, buffer_size=_BUFFER_BYTES)
        assert isinstance(container, InputContainer)
        return container

    try:
        return _read(reopen, size_bytes, max_seconds)
    except _NoDecoder:
        raise Unrestorable("encrypted" if _names_protection(file, size_bytes) else "unreadable") from None
    except MemoryError:
        raise Unrestorable("too_demanding") from None
    except (av.error.FFmpegError, OSError, ValueError, OverflowError, ZeroDivisionError) as exc:
        logger.info("file cannot be read error=%s", type(exc).__name__)
        raise Unrestorable("playlist" if asked else "unreadable") from None


class _NoDecoder(Exception):
    """FFmpeg has no decoder for the picture."""


def _names_protection(file: IO[bytes], size_bytes: int) -> bool:
    """Returns whether an MP4's table of tracks, at either end of the file, names a protected format."""
    found = b""
    for offset in {0, max(0, size_bytes - _TABLE_BYTES)}:
        file.seek(offset)
        # Each read may bring less than was asked for.
        found += b"".join(iter(lambda: file.read(_TABLE_BYTES), b"")) if offset else file.read(_TABLE_BYTES)
    return any(tag in found for tag in _PROTECTED)


def _check_beginning(head: bytes) -> None:
    """Refuses by their first bytes what FFmpeg should not even be asked to guess at."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_POINTERS) or b"<MPD" in head:
        raise Unrestorable("playlist")
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        raise Unrestorable("archive")
    if text[:16].lower().startswith(_PAGES):
        raise Unrestorable("unreadable")
    if head.startswith(_PNG) and max(struct.unpack_from(">II", head.ljust(24, b"\0"), 16)) > MAX_SIDE:
        raise Unrestorable("too_large")  # FFmpeg says of the largest only that they are invalid
    if not head.strip(b"\0"):
        # FFmpeg takes long streams of zeros for raw video of its own invention.
        raise Unrestorable("unreadable")


def _read(reopen: Reopen, size_bytes: int, max_seconds: float) -> tuple[Facts, bytes]:
    container = reopen()
    formats = set(container.format.name.split(","))
    if formats & _PLAYLISTS:
        raise Unrestorable("playlist")
    is_image = bool(formats & _STILLS) or any(name.endswith("_pipe") for name in formats)
    stream = _decodable(container)
    frame = _first_frame(container, stream)
    rotation = round(frame.rotation / 90) % 4 * 90
    sar = stream.sample_aspect_ratio or Fraction(1)
    sar = sar if Fraction(1, 100) < sar < 100 else Fraction(1)
    width, height = _seen_size(frame.width, frame.height, sar, rotation)
    audio = [_track(track) for track in container.streams.audio]
    timing = Timing(1, 0.0, False) if is_image else _timing(reopen, container, stream, size_bytes)
    if timing.seconds > max_seconds:
        raise Unrestorable("too_long")
    facts = Facts(
        container=container.format.long_name[:60],
        codec=stream.codec_context.name,
        coded_width=frame.width,
        coded_height=frame.height,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect_ratio=f"{sar.numerator}/{sar.denominator}",
        frame_rate=_rate(stream, timing),
        is_variable_frame_rate=timing.is_variable,
        num_frames=timing.num_frames,
        duration_seconds=timing.seconds,
        is_interlaced=bool(frame.interlaced_frame),
        is_image=is_image,
        has_alpha=any(component.is_alpha for component in frame.format.components),
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=_color(stream, frame),
        audio_tracks=audio[:64],
        subtitle_tracks=[_track(track) for track in container.streams.subtitles][:64],
        is_playable=_is_playable(container, stream, frame.format.name, audio),
    )
    return facts, _poster(reopen, stream, frame, rotation, is_image=is_image)


def _picture(container: InputContainer) -> VideoStream:
    """Returns the stream to restore: the first that is neither cover art nor a thumbnail."""
    attached = av.stream.Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not moving:
        raise Unrestorable("no_picture" if container.streams.audio else "unreadable")
    return moving[0]


def _decodable(container: InputContainer) -> VideoStream:
    """Returns the stream to restore with its decoder set up. Raises `Unrestorable` for one without."""
    stream = _picture(container)
    _check_codec(stream)
    # Theora's picture may begin inside a block; without this flag FFmpeg leaves the hidden columns in.
    stream.codec_context.flags |= Flags.unaligned
    # The process may not start threads.
    stream.codec_context.thread_count = 1
    return stream


def _check_codec(stream: VideoStream) -> None:
    # A stream that FFmpeg knows but cannot decode has no codec context in PyAV.
    if stream.codec_context is None:
        raise _NoDecoder
    if stream.codec_context.codec_tag.encode() in _PROTECTED:
        raise Unrestorable("encrypted")
    _check_size(stream.codec_context.width, stream.codec_context.height)


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise Unrestorable("too_large")
    if 0 < min(width, height) < MIN_SIDE:
        raise Unrestorable("too_small")


def _first_frame(container: InputContainer, stream: VideoStream) -> av.VideoFrame:
    for packet in itertools.islice(container.demux(stream), _FIRST_PACKETS):
        if any(data.data_type in _ENCRYPTION for data in packet.iter_sidedata()):
            raise Unrestorable("encrypted")
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            assert isinstance(frame, av.VideoFrame)
            _check_size(frame.width, frame.height)
            return frame
    raise Unrestorable("unreadable")


def _color(stream: VideoStream, frame: av.VideoFrame) -> dict[str, int]:
    """Returns range, matrix, primaries and transfer by the numbers of ITU-T H.273."""
    return {
        "range": int(frame.color_range),
        "matrix": int(frame.colorspace),
        "primaries": int(stream.codec_context.color_primaries),
        "transfer": int(stream.codec_context.color_trc),
    }


def _seen_size(width: int, height: int, sar: Fraction, rotation: int) -> tuple[int, int]:
    """Returns the size with square pixels, upright. Pixels are only ever stretched, so that no detail goes."""
    if sar > 1:
        width = round(width * sar)
    elif 0 < sar < 1:
        height = round(height / sar)
    return (height, width) if rotation in (90, 270) else (width, height)


# --- Time ---------------------------------------------------------------------------------------------------


def _timing(reopen: Reopen, container: InputContainer, stream: VideoStream, size_bytes: int) -> Timing:
    """Returns frames and seconds: from the index where the file has one of every frame, by counting elsewhere."""
    return _indexed(container, stream, size_bytes) or _counted(reopen())


def _indexed(container: InputContainer, stream: VideoStream, size_bytes: int) -> Timing | None:
    """Reads MP4's table of frames: gigabytes need not be read then.

    Only frames whose bytes are in the file count, and no byte twice: a table is quickly written, a film is not.
    """
    if "mp4" not in container.format.name.split(",") or not stream.frames:
        return None
    entries = list(stream.index_entries)
    if len(entries) < stream.frames:
        return None  # in fragments: the table grows as they are read
    present = [entry for entry in entries if entry.size > 0 and entry.pos + entry.size <= size_bytes]
    if not present or sum(entry.size for entry in present) > size_bytes:
        raise Unrestorable("unreadable")
    stamps = [entry.timestamp for entry in present if not entry.is_discard]
    if not stamps:
        raise Unrestorable("unreadable")
    return _measured(stream, stamps, last_duration=0)


def _counted(container: InputContainer) -> Timing:
    stream = _picture(container)
    deadline = time.monotonic() + COUNT_SECONDS
    stamps: list[int] = []
    last_duration = 0
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            stamps.append(packet.pts if packet.pts is not None else packet.dts or 0)
            last_duration = packet.duration or last_duration
        if time.monotonic() > deadline:
            return _announced(container, stream, len(stamps))
    if not stamps:
        raise Unrestorable("unreadable")
    return _measured(stream, stamps, last_duration=last_duration)


def _measured(stream: VideoStream, stamps: Iterable[int], *, last_duration: int) -> Timing:
    ordered = sorted(stamps)
    gaps = [after - before for before, after in itertools.pairwise(ordered)]
    typical = sorted(gaps)[len(gaps) // 2] if gaps else last_duration
    base = stream.time_base or Fraction(1, 1000)
    ticks = ordered[-1] - ordered[0] + (last_duration or typical)
    if not ticks and stream.duration:
        ticks = stream.duration  # a single frame is shown for as long as its file says
    seconds = float(ticks * base)
    if not ticks and len(ordered) > 1:
        # Streams without a container have no moments.
        seconds = float(len(ordered) / (stream.average_rate or stream.guessed_rate or Fraction(25)))
    # Time bases such as milliseconds round each gap; more than two ticks and 20 % apart is real.
    is_uneven = any(abs(gap - typical) > max(2, typical * 0.2) for gap in gaps)
    return Timing(len(ordered), seconds, is_uneven)


def _announced(container: InputContainer, stream: VideoStream, counted: int) -> Timing:
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
    else:
        raise Unrestorable("too_long")
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return Timing(max(counted, stream.frames or round(seconds * rate), 1), seconds, False)


def _rate(stream: VideoStream, timing: Timing) -> str:
    """Returns the exact frame rate as a fraction; the measured one where the container names none."""
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not 0 < rate <= 1000:
        measured = timing.num_frames / timing.seconds if timing.seconds > 0 else 25
        rate = Fraction(min(max(measured, 0.001), 1000)).limit_denominator(1001) or Fraction(1, 1001)
    return f"{rate.numerator}/{rate.denominator}"


# --- Tracks, and what browsers show ---------------------------------------------------------------------------


def _track(track: Any) -> dict[str, Any]:
    context = track.codec_context
    described = {
        "codec": context.name if context else "",
        "language": "" if track.language in (None, "und") else str(track.language)[:40],
    }
    if track.type == "audio" and context:
        described |= {"channels": context.channels, "sample_rate": context.sample_rate}
    return described


def _is_playable(
    container: InputContainer, stream: VideoStream, pixels: str, audio: list[dict[str, Any]]
) -> bool:
    """True when today's browsers show the file itself; the others get a proxy."""
    sounds = {track["codec"] for track in audio}
    codec = stream.codec_context.name
    formats = container.format.name.split(",")
    if "mp4" in formats and container.metadata.get("major_brand", "").strip() != "qt":
        return (
            codec in {"h264", "libdav1d", "av1", "vp9"}
            and pixels == "yuv420p"
            and sounds <= {"aac", "mp3", "opus", "mp3float"}
        )
    if "webm" in formats:
        return (
            codec in {"vp8", "vp9", "libdav1d", "av1"}
            and pixels == "yuv420p"
            and sounds <= {"opus", "vorbis"}
        )
    return bool(set(formats) & {"png_pipe", "jpeg_pipe", "webp_pipe"})


def _poster(
    reopen: Reopen, stream: VideoStream, first: av.VideoFrame, rotation: int, *, is_image: bool
) -> bytes:
    """Returns a JPEG from a second into the video: the first second is often black."""
    shown = first if is_image else _later_frame(reopen(), first)
    try:
        # Scaled by FFmpeg, so that a large picture is never a large image here; the process may not start threads.
        size = _poster_size(shown, stream.sample_aspect_ratio or Fraction(1))
        picture = shown.to_image(**size, threads=1).convert("RGB")  # type: ignore[no-untyped-call]
        # FFmpeg's angle is counter-clockwise, as Pillow's.
        encoded = io.BytesIO()
        picture.rotate(rotation, expand=True).save(encoded, "JPEG", quality=82)
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as exc:
        # The video can be restored all the same.
        logger.info("no poster error=%s", type(exc).__name__)
        return b""
    return encoded.getvalue()


def _poster_size(frame: av.VideoFrame, sar: Fraction) -> dict[str, int]:
    width, height = _seen_size(
        frame.width, frame.height, sar if Fraction(1, 100) < sar < 100 else Fraction(1), 0
    )
    scale = min(1.0, POSTER_SIDE / max(width, height))
    return {"width": max(2, round(width * scale)), "height": max(2, round(height * scale))}


def _later_frame(container: InputContainer, first: av.VideoFrame) -> av.VideoFrame:
    shown, deadline = first, time.monotonic() + POSTER_SECONDS
    try:
        stream = _decodable(container)
        for frame in container.decode(stream):
            shown = frame
            start = float((stream.start_time or 0) * (stream.time_base or 1))
            if (frame.time or 0) - start >= 1 or time.monotonic() > deadline:
                break
    except (av.error.FFmpegError, MemoryError) as exc:
        logger.info("poster from the first frame error=%s", type(exc).__name__)
    return shown
