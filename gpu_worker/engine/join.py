"""Joins segments into the result: their packets as they are, and what else the source has beside its picture.

Nothing is encoded anew but sound and subtitles that the container does not hold. Memory does not grow with
the length, but for the index that MP4 wants at its front (some 60 bytes for each frame).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from gpu_worker.contract import ErrorCode, Output, WorkerError
from gpu_worker.engine.containers import open_source, video_stream
from gpu_worker.engine.decoding_order import DecodingOrder
from gpu_worker.engine.errors import reading, writing
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.png import join_sequence, only_picture
from gpu_worker.engine.tracks import MATROSKA, MOV, MP4, Clock, Lost, Tracks, copy_description, describe
from gpu_worker.engine.video import Measured, VideoSource, measure

OnSegment = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the result in ticks: from the first frame's moment to the end of the last. It begins at 0."""

    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """The finished file as measured, and what of the source it does not have, or has in another form."""

    measured: Measured
    lost: tuple[Lost, ...] = ()
    converted: tuple[Lost, ...] = ()

    @property
    def num_audio_tracks_lost(self) -> int:
        """How many sound tracks are missing."""
        return sum(one.kind == "audio" for one in self.lost)


def join(
    segments: Sequence[Path],
    result: Path,
    *,
    source: VideoSource,
    result_format: ResultFormat,
    span: Span | None = None,
    on_segment: OnSegment | None = None,
) -> Joined:
    """Joins the segments of a whole result, or of a `span` of it, in their order.

    `on_segment` hears how many segments are joined. Raises `WorkerError`.
    """
    if not segments:
        raise ValueError("there is no segment to join")
    job = _Join(source=source, result_format=result_format, span=span, on_segment=on_segment)
    with writing():
        if result_format.output is not Output.PNG:
            return job.movie(segments, result)
        if result_format.is_image:
            only_picture(segments, result, profile=source.still.profile)
            lost = (Lost("video", source.still.lost),) if source.still.lost else ()
            return Joined(measured=_measured_pictures(result_format, 1, sound=None), lost=lost)
        return job.sequence(segments, result)


@dataclass(frozen=True, kw_only=True)
class _Join:
    source: VideoSource
    result_format: ResultFormat
    span: Span | None
    on_segment: OnSegment | None

    @property
    def start(self) -> int:
        """The moment that becomes 0, in ticks."""
        return 0 if self.span is None else self.span.start

    @property
    def clock(self) -> Clock:
        unit = self.result_format.time_base
        zero = self.source.start_seconds
        if self.span is None:
            return Clock(zero=zero)
        return Clock(zero=zero + self.span.start * unit, end=(self.span.end - self.span.start) * unit)

    def movie(self, segments: Sequence[Path], result: Path) -> Joined:
        """Writes MP4 or MOV."""
        container = self.result_format.encoder.container
        options = {
            "movflags": "+faststart",
            "movie_timescale": str(self.result_format.time_base.denominator),
        }
        with av.open(str(result), "w", format=container, options=options) as output:
            with open_source(segments[0]) as first:
                stream = self._add_video(output, video_stream(first))
            holds = MP4 if container == "mp4" else MOV
            tracks = Tracks(self.source.path, output, holds=holds, clock=self.clock)
            with closing(tracks):
                extras = _Extras(self.source.path, output, clock=self.clock)
                for packet, seconds in self._packets(segments, stream):
                    tracks.advance(seconds)
                    output.mux(packet)
                    extras.add_pictures()
                tracks.finish()
        lost = [*tracks.lost, *extras.lost, *self._lost_of_picture(), *extras.missing_tags(result)]
        return Joined(measured=measure(result), lost=tuple(lost), converted=tuple(tracks.converted))

    def sequence(self, segments: Sequence[Path], result: Path) -> Joined:
        """Writes a ZIP of PNG files."""
        sound, tracks = self._sound_file(result.with_suffix(".mka"))
        try:
            num_frames = join_sequence(
                segments,
                result,
                time_base=self.result_format.time_base,
                start_ticks=self.start,
                sound=sound,
            )
            measured = _measured_pictures(self.result_format, num_frames, sound=sound)
        finally:
            if sound is not None:
                sound.unlink()
        return Joined(measured=measured, lost=tuple(tracks.lost), converted=tuple(tracks.converted))

    def _sound_file(self, path: Path) -> tuple[Path | None, Tracks]:
        with av.open(str(path), "w", format="matroska") as output:
            tracks = Tracks(self.source.path, output, holds=MATROSKA, clock=self.clock)
            with closing(tracks):
                if output.streams:
                    extras = _Extras(self.source.path, output, clock=self.clock, has_cover=False)
                    tracks.lost += extras.lost
                    tracks.finish()
        # There is no file where nothing was written: a span may lie where the tracks are silent.
        return path if path.exists() else None, tracks

    def _add_video(self, output: OutputContainer, template: VideoStream) -> VideoStream:
        stream = output.add_stream_from_template(template)
        encoder = self.result_format.encoder
        if encoder.codec_tag is not None:
            stream.codec_context.codec_tag = encoder.codec_tag
        stream.time_base = self.result_format.time_base
        with open_source(self.source.path) as source:
            origin = video_stream(source)
            copy_description(origin, stream)
            stream.disposition = Disposition.default
        return stream

    def _packets(
        self, segments: Sequence[Path], stream: VideoStream
    ) -> Iterator[tuple[Packet[VideoStream], Fraction]]:
        """Yields the packets of all segments with the moment up to which sound may be written."""
        unit = self.result_format.time_base
        order = DecodingOrder(self.result_format.encoder.reordering, self.result_format.frame_ticks)
        parameters: bytes | None = None
        for number, path in enumerate(segments, start=1):
            with open_source(path) as container:
                segment = video_stream(container)
                if parameters is None:
                    parameters = segment.codec_context.extradata
                elif parameters != segment.codec_context.extradata:
                    raise WorkerError(
                        ErrorCode.ENGINE_FAILED, f"segment {number} comes from another encoder than the first"
                    )
                moments = self._moments(container, segment)
                order.expect(moments)
                end = self._odd_end(moments[-1]) if number == len(segments) else None
                container.seek(0, stream=segment)
                for position, packet in enumerate(container.demux(segment), start=1):
                    if not packet.size:
                        continue
                    packet.pts = self._ticks(packet) - self.start
                    packet.dts = order.decoded_at(packet.pts)
                    packet.duration = round((packet.duration or 0) * packet.time_base / unit)
                    # MP4 has one list of lengths, in the order of decoding: the last one there counts as well.
                    if end is not None and (packet.pts == moments[-1] or position == len(moments)):
                        packet.duration = end - packet.pts
                    packet.time_base = unit
                    packet.stream = stream
                    yield packet, packet.dts * unit
            if self.on_segment is not None:
                self.on_segment(number)

    def _odd_end(self, last: int) -> int | None:
        """Returns when the result ends; None where its last frame, which begins at `last`, is shown as usual."""
        usual = last + self.result_format.frame_ticks
        told = last + self.result_format.last_frame_ticks
        end = told if self.span is None else self.span.end - self.span.start
        return None if end == usual else end

    def _moments(self, container: InputContainer, segment: VideoStream) -> list[int]:
        moments = [self._ticks(packet) - self.start for packet in container.demux(segment) if packet.size]
        if not moments:
            raise WorkerError(ErrorCode.ENGINE_FAILED, "a segment has no frame")
        return sorted(moments)

    def _ticks(self, packet: Packet[Any]) -> int:
        assert packet.pts is not None
        ticks = packet.pts * packet.time_base / self.result_format.time_base
        if ticks.denominator != 1:
            raise WorkerError(ErrorCode.ENGINE_FAILED, f"a frame of a segment stands at {ticks} ticks")
        return int(ticks)

    def _lost_of_picture(self) -> list[Lost]:
        lost = []
        if self.source.has_alpha:
            lost.append(Lost("video", "transparency: the format has none"))
        lost += [
            Lost("video", f"{name}: what changes from scene to scene") for name in self.source.hdr.dynamic
        ]
        if self.result_format.output is Output.PRORES and self.source.hdr.mastering is not None:
            lost.append(Lost("video", "mastering display: ProRes has no place for it"))
        return lost


class _Extras:
    """Chapters, tags and cover art of the source."""

    def __init__(
        self, source: Path, output: OutputContainer, *, clock: Clock, has_cover: bool = True
    ) -> None:
        self.lost: list[Lost] = []
        self._output = output
        self._pictures: list[Packet[Any]] = []
        with open_source(source) as container:
            self._tags = {
                key: value for key, value in container.metadata.items() if key not in _TAGS_OF_THE_FILE
            }
            # PyAV cannot give a copied stream its rate, and without one ffmpeg refuses to write a time code.
            output.metadata.update({key: tag for key, tag in self._tags.items() if key != "timecode"})
            chapters = _chapters(container, clock)
            if chapters:
                output.set_chapters(chapters)
            self._add_covers(container, _COVER_CODECS if has_cover else frozenset())
            for stream in container.streams:
                if stream.type in ("data", "attachment") and not _are_chapters(stream, container):
                    self.lost.append(Lost(stream.type, _name_of(stream)))

    def add_pictures(self) -> None:
        """Writes the cover art, once."""
        for packet in self._pictures:
            self._output.mux(packet)
        self._pictures = []

    def missing_tags(self, result: Path) -> list[Lost]:
        """Compares the source's tags with those that the finished file has."""
        with open_source(result) as container:
            kept = {key.lower() for key in container.metadata}
        return [Lost("tag", key) for key in self._tags if key.lower() not in kept]

    def _add_covers(self, container: InputContainer, codecs: frozenset[str]) -> None:
        covers = [one for one in container.streams.video if one.disposition & Disposition.attached_pic]
        taken: list[VideoStream] = []
        for cover in covers:
            if cover.codec_context is None or cover.codec_context.codec.canonical_name not in codecs:
                self.lost.append(Lost("cover", describe(cover)))
            else:
                taken.append(cover)
        if not taken:
            return
        streams = {}
        for cover in taken:
            streams[cover.index] = self._output.add_stream_from_template(cover)
            streams[cover.index].disposition = Disposition.attached_pic
        for packet in container.demux(taken):
            if packet.size:
                packet.stream = streams.pop(packet.stream_index)
                packet.pts = packet.dts = 0
                self._pictures.append(packet)
            if not streams:
                return


_COVER_CODECS: Final = frozenset({"mjpeg", "png", "bmp"})
#: What a file says about itself and not about the film.
_TAGS_OF_THE_FILE: Final = frozenset(
    {
        *("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "duration", "DURATION"),
        *("service_name", "service_provider", "handler_name", "vendor_id", "software"),
    }
)


def _are_chapters(stream: av.stream.Stream, container: InputContainer) -> bool:
    """True for MP4's track of chapters' names: they are read as chapters already."""
    num_chapters = len(container.chapters())
    return stream.name == "bin_data" and num_chapters > 0 and stream.frames == num_chapters


def _name_of(stream: av.stream.Stream) -> str:
    name = stream.metadata.get("filename") or stream.metadata.get("handler_name")
    return f"track {stream.index} ({name.strip()})" if name else f"track {stream.index}"


def _chapters(container: InputContainer, clock: Clock) -> list[Any]:
    """Returns the chapters that lie in the result, at their moments there."""
    chapters = []
    for chapter in container.chapters():
        unit = chapter["time_base"]
        if unit is None:
            continue
        start = max(clock.moment(chapter["start"], unit), Fraction(0))
        end = clock.moment(chapter["end"], unit)
        if clock.end is not None:
            end = min(end, clock.end)
        if end > start:
            milliseconds = {"start": round(start * 1000), "end": round(end * 1000)}
            chapters.append({**chapter, **milliseconds, "time_base": Fraction(1, 1000)})
    return chapters


def _measured_pictures(result_format: ResultFormat, num_frames: int, *, sound: Path | None) -> Measured:
    num_tracks = 0
    if sound is not None:
        with reading(), open_source(sound) as container:
            num_tracks = len(container.streams.audio)
    return Measured(
        width=result_format.width,
        height=result_format.height,
        num_frames=num_frames,
        frame_rate=result_format.rate,
        duration_seconds=float(num_frames / result_format.rate),
        num_audio_tracks=num_tracks,
    )
