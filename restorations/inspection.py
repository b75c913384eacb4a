"""Look into an uploaded file with PyAV: what is in it, can it be restored, what does it look like.

`inspect` is the use case; `probe` is the reading of one file, without database or storage.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream
from django.conf import settings
from django.db import transaction
from django.db.models import F

from restorations import notifications, objects, previews
from restorations.doorbells import Doorbell, ring
from restorations.models import Video
from restorations.rejections import Rejection

logger = logging.getLogger(__name__)

MAX_INSPECTIONS: Final = 2
MIN_SIDE: Final = 16
MAX_SIDE: Final = 8192
#: Seconds for counting frames packet by packet; after that the container's own figure has to do.
COUNT_BUDGET: Final = 8.0

#: Formats that are lists of other files, or addresses: following them would read what nobody uploaded.
_PLAYLISTS: Final = {"hls", "concat", "dash", "sdp", "rtsp", "rtp", "applehttp", "imf", "webm_dash_manifest"}
_STILLS: Final = {"image2", "gif", "ico"}  # and every format called *_pipe
_HDR_TRANSFERS: Final = {16, 18}  # SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG), ITU-T H.273 table 3


class Unrestorable(Exception):
    """A file cannot be restored, for a reason that its owner understands."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a probe found; the names are those of `Video`'s fields."""

    container: str
    codec: str
    coded_width: int
    coded_height: int
    width: int
    height: int
    rotation: int
    sample_aspect_ratio: str
    frame_rate: str
    is_variable_frame_rate: bool
    num_frames: int
    duration_seconds: float
    is_interlaced: bool
    pixel_format: str
    bit_depth: int
    color: dict[str, int]
    audio_tracks: list[dict[str, Any]] = field(default_factory=list)
    subtitle_tracks: list[dict[str, Any]] = field(default_factory=list)
    is_playable: bool


def inspect(video_id: UUID | str) -> None:
    """Inspects an uploaded video and stores the verdict; a second call on the same video does nothing."""
    video = _claim(video_id)
    if video is None:
        return
    try:
        if video.num_inspections > MAX_INSPECTIONS:
            raise Unrestorable(Rejection.UNREADABLE)
        with objects.local_copy(video.storage_key) as file:
            facts = probe(file)
            poster_key = previews.make_poster(video, file, facts.rotation)
    except Unrestorable as verdict:
        logger.info("video rejected video=%s reason=%s", video.pk, verdict.reason)
        _decide(video, Video.Status.REJECTED, rejection=verdict.reason.value)
        return
    values = dataclasses.asdict(facts)
    needs_proxy = not values.pop("is_playable")
    _decide(video, Video.Status.READY, poster_key=poster_key, **values)
    if needs_proxy:
        ring(Doorbell.MAKE_PROXY, video_id=video.pk)


def _claim(video_id: UUID | str) -> Video | None:
    """Counts the inspection before it begins: a file that kills the process is given up after a few."""
    waiting = Video.objects.filter(pk=video_id, status=Video.Status.INSPECTING, deleted_at=None)
    if not waiting.update(num_inspections=F("num_inspections") + 1):
        return None
    return waiting.first()


def _decide(video: Video, status: Video.Status, **values: Any) -> None:
    with transaction.atomic():
        undecided = Video.objects.filter(pk=video.pk, status=Video.Status.INSPECTING)
        if undecided.update(status=status, **values):
            notifications.video_changed(video)


def probe(file: Path) -> Facts:
    """Reads a file's facts. Raises `Unrestorable` with the reason when it cannot be restored."""
    if file.stat().st_size == 0:
        raise Unrestorable(Rejection.EMPTY)
    try:
        with av.open(file, options={"protocol_whitelist": "file"}) as container:
            return _facts(container)
    except av.error.FFmpegError as exc:
        logger.info("file cannot be opened file=%s error=%s", file.name, exc)
        raise Unrestorable(Rejection.UNREADABLE) from exc


def _facts(container: InputContainer) -> Facts:
    stream = _restorable_stream(container)
    frame = _first_frame(container, stream)
    rotation = round(frame.rotation) % 360
    sar = stream.sample_aspect_ratio or Fraction(1)
    width, height = _seen_size(frame.width, frame.height, sar, rotation)
    audio = [_track(track) for track in container.streams.audio]
    count, duration, is_variable = _timing(container, stream)
    if duration > settings.MAX_DURATION_SECONDS:
        raise Unrestorable(Rejection.TOO_LONG)
    return Facts(
        container=container.format.long_name[:60],
        codec=stream.codec_context.name,
        coded_width=frame.width,
        coded_height=frame.height,
        width=width,
        height=height,
        rotation=rotation,
        sample_aspect_ratio=f"{sar.numerator}/{sar.denominator}",
        frame_rate=_rate(stream, count, duration),
        is_variable_frame_rate=is_variable,
        num_frames=count,
        duration_seconds=duration,
        is_interlaced=bool(frame.interlaced_frame),
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=_color(stream, frame),
        audio_tracks=audio,
        subtitle_tracks=[_track(track) for track in container.streams.subtitles],
        is_playable=_is_playable(container, stream, frame.format.name, audio),
    )


def _restorable_stream(container: InputContainer) -> VideoStream:
    """Returns the stream to restore, unless the file is of a kind that is none."""
    formats = set(container.format.name.split(","))
    if formats & _PLAYLISTS:
        raise Unrestorable(Rejection.PLAYLIST)
    stream = _picture(container)
    if formats & _STILLS or any(name.endswith("_pipe") for name in formats):
        raise Unrestorable(Rejection.STILL)
    _check_codec(stream)
    # Theora's picture may begin inside a block; without this flag FFmpeg leaves the hidden columns in.
    stream.codec_context.flags |= Flags.unaligned
    return stream


def _color(stream: VideoStream, frame: av.VideoFrame) -> dict[str, int]:
    """Returns range, matrix, primaries and transfer by the numbers of ITU-T H.273."""
    color = {
        "range": int(frame.color_range),
        "matrix": int(frame.colorspace),
        "primaries": int(stream.codec_context.color_primaries),
        "transfer": int(stream.codec_context.color_trc),
    }
    if color["transfer"] in _HDR_TRANSFERS:
        raise Unrestorable(Rejection.HDR)
    return color


def _picture(container: InputContainer) -> VideoStream:
    """Returns the stream to restore: the first that is neither cover art nor a thumbnail."""
    attached = av.stream.Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not moving:
        raise Unrestorable(Rejection.NO_PICTURE)
    return moving[0]


def _check_codec(stream: VideoStream) -> None:
    # A stream that FFmpeg knows but cannot decode has no codec context in PyAV.
    if stream.codec_context is None:
        encrypted = {"encv", "drmi"}
        raise Unrestorable(
            Rejection.ENCRYPTED if stream.metadata.get("codec_tag") in encrypted else Rejection.UNREADABLE
        )
    if stream.codec_context.codec_tag in {"encv", "drmi"}:
        raise Unrestorable(Rejection.ENCRYPTED)
    _check_size(stream.codec_context.width, stream.codec_context.height)


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise Unrestorable(Rejection.TOO_LARGE)
    if 0 < min(width, height) < MIN_SIDE:
        raise Unrestorable(Rejection.TOO_SMALL)


def _first_frame(container: InputContainer, stream: VideoStream) -> av.VideoFrame:
    # A damaged start is common on old tapes: give the decoder some packets to find its first picture.
    try:
        for packet in itertools.islice(container.demux(stream), 300):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                _check_size(frame.width, frame.height)
                return frame
    except av.error.FFmpegError as exc:
        raise Unrestorable(Rejection.UNREADABLE) from exc
    raise Unrestorable(Rejection.UNREADABLE)


def _seen_size(width: int, height: int, sar: Fraction, rotation: int) -> tuple[int, int]:
    """Returns the size with square pixels, upright. Pixels are only ever stretched, so that no detail goes."""
    if sar > 1:
        width = round(width * sar)
    elif 0 < sar < 1:
        height = round(height / sar)
    return (height, width) if rotation in (90, 270) else (width, height)


def _timing(container: InputContainer, stream: VideoStream) -> tuple[int, float, bool]:
    """Returns frames, seconds, and whether the frames come at uneven times."""
    container.seek(0, stream=stream)
    deadline = time.monotonic() + COUNT_BUDGET
    stamps: list[int] = []
    complete = True
    last_duration = 0
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            stamps.append(packet.pts if packet.pts is not None else packet.dts or 0)
            last_duration = packet.duration or last_duration
        if time.monotonic() > deadline:
            complete = False
            break
    if not stamps:
        raise Unrestorable(Rejection.UNREADABLE)
    if not complete:
        return _announced_timing(container, stream, len(stamps))
    stamps.sort()
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    typical = sorted(gaps)[len(gaps) // 2] if gaps else last_duration
    base = stream.time_base or Fraction(1, 1000)
    seconds = float((stamps[-1] - stamps[0] + (last_duration or typical)) * base)
    # Time bases such as milliseconds round each gap; more than two ticks and 20 % apart is real.
    uneven = any(abs(gap - typical) > max(2, typical * 0.2) for gap in gaps)
    return len(stamps), seconds, uneven


def _announced_timing(
    container: InputContainer, stream: VideoStream, counted: int
) -> tuple[int, float, bool]:
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / av.time_base
    else:
        raise Unrestorable(Rejection.TOO_LONG)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(counted, stream.frames or round(seconds * rate)), seconds, False


def _rate(stream: VideoStream, count: int, duration: float) -> str:
    """Returns the exact frame rate as a fraction; the measured one where the container names none."""
    rate = stream.average_rate or stream.guessed_rate
    if not rate or rate > 1000:
        rate = Fraction(count / duration).limit_denominator(1001) if duration > 0 else Fraction(25)
    return f"{rate.numerator}/{rate.denominator}"


def _track(track: Any) -> dict[str, Any]:
    context = track.codec_context
    described = {
        "codec": context.name if context else "",
        "language": "" if track.language in (None, "und") else track.language,
    }
    if track.type == "audio" and context:
        described |= {"channels": context.channels, "sample_rate": context.sample_rate}
    return described


def _is_playable(
    container: InputContainer, stream: VideoStream, pixels: str, audio: list[dict[str, Any]]
) -> bool:
    """True when today's browsers play the file itself; the others get a proxy."""
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
    return False
