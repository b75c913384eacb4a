"""Brings sound and subtitles of the source into the result, in step with the picture.

Each track is copied bit for bit where the result's container holds its codec and players know it there, else
encoded anew: sound without loss where the source's is without loss. What cannot come along is named.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from gpu_worker.engine.containers import open_source, video_stream
from gpu_worker.engine.recordings import read_packets

logger = logging.getLogger(__name__)

_AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_BITS_A_CHANNEL: Final = 96_000
_MAX_CHANNELS: Final = 8
#: So many samples are encoded at once: what AAC wants.
_FRAME_SAMPLES: Final = 1024
_TEXT_SUBTITLES: Final = frozenset({"subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Holds:
    """What a container takes. Codecs by ffmpeg's names.

    `sound` and `subtitles` are copied. Other sound becomes `lossless` where the source's codec is lossless or
    `lossy` is None; text subtitles become `text`.
    """

    sound: frozenset[str]
    lossless: str
    lossy: str | None
    subtitles: frozenset[str]
    text: str
    has_pcm: bool = False


_MPEG_SOUND: Final = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
#: MP4 could hold PCM, MP2 and Vorbis too, but browsers do not play them from there; FLAC they do.
MP4: Final = Holds(
    sound=_MPEG_SOUND | {"opus", "flac", "dts"},
    lossless="flac",
    lossy="aac",
    subtitles=frozenset({"mov_text", "dvd_subtitle"}),
    text="mov_text",
)
#: Editors that read MOV want PCM.
MOV: Final = Holds(
    sound=_MPEG_SOUND,
    lossless="pcm_s24le",
    lossy=None,
    subtitles=frozenset({"mov_text"}),
    text="mov_text",
    has_pcm=True,
)
MATROSKA: Final = Holds(
    sound=_MPEG_SOUND | {"opus", "flac", "dts", "vorbis", "mp2", "truehd", "mlp", "wavpack", "tta"},
    lossless="flac",
    lossy=None,
    subtitles=frozenset({"subrip", "ass", "webvtt", "dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle"}),
    text="subrip",
    has_pcm=True,
)
#: Matroska has no place for these layouts of samples.
_ODD_PCM: Final = frozenset({"pcm_bluray", "pcm_dvd", "pcm_mulaw", "pcm_alaw", "pcm_s8"})


@dataclass(frozen=True, slots=True)
class Lost:
    """Something of the source that the result does not have: its kind, and a name for people."""

    kind: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Turns moments of the source into moments of the result, in seconds.

    `zero` is the moment of the source that is 0 in the result. With `end`, only sound that begins before that
    moment of the result, and not before 0, belongs to it.
    """

    zero: Fraction
    end: Fraction | None = None

    def moment(self, timestamp: int, unit: Fraction) -> Fraction:
        """Returns when a timestamp of the source is in the result."""
        return timestamp * unit - self.zero

    def has(self, moment: Fraction) -> bool:
        """True for what belongs into the result."""
        return self.end is None or 0 <= moment < self.end

    def shown(self, moment: Fraction, length: Fraction) -> tuple[Fraction, Fraction] | None:
        """Returns when and how long the result shows a text; one that is there already begins at 0."""
        if self.is_past(moment) or (moment < 0 and moment + length <= 0):
            return None
        begin, end = max(moment, Fraction(0)), moment + length
        return begin, (end if self.end is None else min(end, self.end)) - begin

    def is_past(self, moment: Fraction) -> bool:
        """True when nothing from here on belongs into the result."""
        return self.end is not None and moment >= self.end


class Track(Protocol):
    """One track on its way."""

    def convert(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Yields what the result holds for a packet of the source."""

    def finish(self) -> Iterator[Packet[Any]]:
        """Yields what was held back."""


class Tracks:
    """Reads the source's sound and subtitles beside its video and writes them in step with the video.

    `lost` names what cannot come along, `converted` what is encoded anew.
    """

    def __init__(self, source: Path, output: OutputContainer, *, holds: Holds, clock: Clock) -> None:
        self._source: InputContainer = open_source(source)
        self._output = output
        self._holds = holds
        self._clock = clock
        self._tracks: dict[int, Track] = {}
        self.lost: list[Lost] = []
        self.converted: list[Lost] = []
        for sound in self._source.streams.audio:
            self._add_sound(sound)
        for subtitles in self._source.streams.subtitles:
            self._add_subtitles(subtitles)
        self._packets = self._read()
        self._next: Packet[Any] | None = None

    def advance(self, until_seconds: Fraction) -> None:
        """Writes what belongs before a moment of the result."""
        if self._next is None:
            self._next = next(self._packets, None)
        while self._next is not None and self._moment(self._next) <= until_seconds:
            self._write(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Writes the rest."""
        if self._next is not None:
            self._write(self._next)
            self._next = None
        for packet in self._packets:
            self._write(packet)
        for track in self._tracks.values():
            for held_back in track.finish():
                self._output.mux(held_back)

    def close(self) -> None:
        """Closes the source."""
        self._source.close()

    def _add_sound(self, stream: AudioStream) -> None:
        if stream.codec_context is None:
            self.lost.append(Lost("audio", f"{describe(stream)}: no decoder for it"))
            return
        if not stream.channels:
            # A broadcast can announce a track and send nothing of it.
            self.lost.append(Lost("audio", f"{describe(stream)}: announced, and not there"))
            return
        # A decoder's name can differ from its codec's: "mp3float" decodes MP3.
        codec = stream.codec_context.codec.canonical_name
        is_pcm = codec.startswith("pcm_")
        if codec in self._holds.sound or (is_pcm and self._holds.has_pcm and codec not in _ODD_PCM):
            self._tracks[stream.index] = CopiedTrack(stream, self._output, self._clock)
            return
        target = self._holds.lossless
        if self._holds.lossy is not None and not _is_lossless(stream):
            target = self._holds.lossy
        self._tracks[stream.index] = EncodedTrack(stream, self._output, self._clock, codec=target)
        self.converted.append(Lost("audio", f"{describe(stream)} became {target}"))

    def _add_subtitles(self, stream: SubtitleStream) -> None:
        codec = None if stream.codec_context is None else stream.codec_context.codec.canonical_name
        if codec in self._holds.subtitles:
            self._tracks[stream.index] = CopiedTrack(stream, self._output, self._clock)
        elif codec in _TEXT_SUBTITLES:
            self._tracks[stream.index] = TextTrack(stream, self._output, self._clock, codec=self._holds.text)
            if codec in ("ass", "ssa"):
                self.converted.append(
                    Lost("subtitles", f"{describe(stream)}: their text without their design")
                )
        else:
            self.lost.append(Lost("subtitles", f"{describe(stream)}: the container holds text only"))

    def _read(self) -> Iterator[Packet[Any]]:
        wanted = [stream for stream in self._source.streams if stream.index in self._tracks]
        if not wanted:
            return
        past: set[int] = set()
        for packet in read_packets(self._source, video_stream(self._source), wanted):
            # The demuxer ends with an empty packet for each stream.
            if packet.dts is None and packet.pts is None:
                continue
            if self._clock.is_past(self._moment(packet)):
                past.add(packet.stream_index)
                if len(past) == len(wanted):
                    return
                continue
            yield packet

    def _moment(self, packet: Packet[Any]) -> Fraction:
        timestamp = packet.dts if packet.dts is not None else packet.pts
        assert timestamp is not None
        return self._clock.moment(timestamp, packet.time_base)

    def _write(self, packet: Packet[Any]) -> None:
        for converted in self._tracks[packet.stream_index].convert(packet):
            try:
                self._output.mux(converted)
            except av.error.InvalidDataError:
                # ffmpeg looks into what it copies from one container's form into another's.
                logger.warning("track %d: a packet is damaged", packet.stream_index)


class CopiedTrack:
    """A track whose packets are the same bytes in the result."""

    def __init__(self, stream: Any, output: OutputContainer, clock: Clock) -> None:
        self._stream = output.add_stream_from_template(stream)
        self._clock = clock
        self._shift = round(clock.zero / stream.time_base)
        self._is_text = stream.codec_context.codec.canonical_name == "mov_text"
        self._is_sound = stream.type == "audio"
        self._last = -math.inf
        copy_description(stream, self._stream)

    def convert(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """Yields the packet itself, counted from the result's start."""
        if self._is_text and packet.size <= _EMPTY_TEXT_BYTES:
            # MP4's pause between two texts; the muxer makes them anew.
            return
        # AVI gives its packets one moment only; sound is decoded in the order in which it is heard.
        decoded_at = packet.dts if packet.dts is not None else packet.pts
        shown_at = packet.pts if packet.pts is not None else packet.dts
        assert decoded_at is not None
        assert shown_at is not None
        moment = self._clock.moment(shown_at, packet.time_base)
        if self._is_sound:
            # Where recordings meet, the sound of the one can reach into the other.
            if not self._clock.has(moment) or decoded_at < self._last:
                return
            self._last = decoded_at
            packet.dts, packet.pts = decoded_at - self._shift, shown_at - self._shift
        else:
            shown = self._clock.shown(moment, (packet.duration or 0) * packet.time_base)
            if shown is None:
                return
            packet.dts = packet.pts = round(shown[0] / packet.time_base)
            packet.duration = round(shown[1] / packet.time_base)
        packet.stream = self._stream
        yield packet

    def finish(self) -> Iterator[Packet[Any]]:
        """Yields nothing: a copied track holds nothing back."""
        yield from ()


@dataclass(frozen=True, slots=True)
class _Form:
    """How samples are written."""

    sample_format: str
    layout: str
    rate: int

    def resampler(self, *, num_samples: int | None = None) -> AudioResampler:
        """Returns what turns sound into this form, in frames of so many samples."""
        return AudioResampler(self.sample_format, self.layout, self.rate, num_samples)


class EncodedTrack:
    """Sound that the container does not hold, encoded anew."""

    def __init__(self, stream: AudioStream, output: OutputContainer, clock: Clock, *, codec: str) -> None:
        self._source = stream
        self._clock = clock
        rate = stream.rate
        sample_format = "s32" if _bits(stream) > 16 else "s16"
        if codec == "aac":
            rate = min(_AAC_RATES, key=lambda accepted: abs(accepted - stream.rate))
            sample_format = "fltp"
        elif codec == "pcm_s24le":
            codec, sample_format = ("pcm_s24le", "s32") if _bits(stream) > 16 else ("pcm_s16le", "s16")
        encoder = output.add_stream(codec, rate=rate)
        assert isinstance(encoder, AudioStream)
        self._encoder = encoder
        layout = _layout(stream)
        self._encoder.layout = layout
        self._encoder.format = sample_format
        if codec == "aac":
            self._encoder.bit_rate = _BITS_A_CHANNEL * min(stream.channels, _MAX_CHANNELS)
        self._form = _Form(sample_format, layout, rate)
        self._converter = self._form.resampler()
        #: What the converter is set up for.
        self._converts: _Form | None = None
        self._cutter = self._form.resampler(num_samples=_FRAME_SAMPLES)
        #: Where in the source the next sample belongs.
        self._following = round(clock.zero * rate)
        self._last = -math.inf
        copy_description(stream, self._encoder)

    def convert(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        """Yields the encoded packets that are ready; what cannot be decoded is left out and logged."""
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            logger.warning("sound track %d: a packet cannot be decoded", self._source.index)
            return
        for frame in frames:
            yield from self._resample(frame)

    def finish(self) -> Iterator[Packet[AudioStream]]:
        """Yields what the decoder, the resamplers and the encoder still hold."""
        for frame in self._source.codec_context.decode(None):
            yield from self._resample(frame)
        yield from self._convert(None)
        for cut in self._cutter.resample(None):
            yield from self._encode(cut)
        yield from self._encoder.encode(None)

    def _resample(self, frame: av.AudioFrame) -> Iterator[Packet[AudioStream]]:
        """Gives sound the form of the result; that of the source can change on the way, as broadcasts do it."""
        form = _Form(frame.format.name, frame.layout.name, frame.sample_rate)
        if self._converts not in (None, form):
            yield from self._convert(None)
            self._converter = self._form.resampler()
        self._converts = form
        yield from self._convert(frame)

    def _convert(self, frame: av.AudioFrame | None) -> Iterator[Packet[AudioStream]]:
        """Encodes sound in frames of one length; without a frame what the converter still holds."""
        for converted in self._converter.resample(frame):
            # A converter with nothing to do gives back what it gets.
            if converted is None:
                continue
            rate = self._form.rate
            if converted.pts is None or converted.time_base is None:
                # Decoders say no moment of what they held back.
                converted.pts = self._following
            else:
                # Converters count in units of their own, and the cutter expects those of its first frame.
                converted.pts = round(converted.pts * converted.time_base * rate)
            converted.time_base = Fraction(1, rate)
            self._following = converted.pts + converted.samples
            for cut in self._cutter.resample(converted):
                yield from self._encode(cut)

    def _encode(self, frame: av.AudioFrame) -> Iterator[Packet[AudioStream]]:
        if frame.pts is not None and frame.time_base is not None:
            if not self._clock.has(self._clock.moment(frame.pts, frame.time_base)):
                return
            if frame.pts <= self._last:
                # As in a track that is copied.
                return
            self._last = frame.pts
            frame.pts -= round(self._clock.zero / frame.time_base)
        yield from self._encoder.encode(frame)


class TextTrack:
    """Text subtitles in the container's own codec."""

    def __init__(self, stream: SubtitleStream, output: OutputContainer, clock: Clock, *, codec: str) -> None:
        self._source = stream
        self._clock = clock
        result = output.add_stream(codec)
        assert isinstance(result, SubtitleStream)
        self._stream = result
        # The decoder fills the header that the encoder asks for.
        stream.codec_context.open(strict=False)
        self._stream.codec_context.subtitle_header = stream.codec_context.subtitle_header
        self._stream.time_base = _MILLISECOND
        copy_description(stream, self._stream)

    def convert(self, packet: Packet[SubtitleStream]) -> Iterator[Packet[SubtitleStream]]:
        """Yields the text of a packet, unless it is empty or not to be read."""
        assert packet.pts is not None
        length = (packet.duration or 0) * packet.time_base
        shown = self._clock.shown(self._clock.moment(packet.pts, packet.time_base), length)
        if shown is None:
            return
        try:
            subtitles = self._source.decode2(packet)
        except av.error.InvalidDataError:
            logger.warning("subtitle track %d: a packet cannot be decoded", self._source.index)
            return
        if subtitles is None or not len(subtitles):
            return
        moment, length = shown
        converted = self._stream.codec_context.encode_subtitle(subtitles)
        converted.stream = self._stream
        converted.time_base = _MILLISECOND
        converted.pts = converted.dts = round(moment / _MILLISECOND)
        converted.duration = round(length / _MILLISECOND)
        yield converted

    def finish(self) -> Iterator[Packet[SubtitleStream]]:
        """Yields nothing: a text holds nothing back."""
        yield from ()


_EMPTY_TEXT_BYTES: Final = 2
_MILLISECOND: Final = Fraction(1, 1000)


def describe(stream: Stream) -> str:
    """Names a track for people: its number in the file, codec and language."""
    codec = "unknown" if stream.codec_context is None else stream.codec_context.codec.canonical_name
    language = stream.metadata.get("language")
    return f"track {stream.index} ({codec}, {language})" if language else f"track {stream.index} ({codec})"


def copy_description(source: Stream, result: Stream) -> None:
    """Gives a track its language, title and purpose."""
    if language := source.metadata.get("language"):
        result.metadata["language"] = language
    # MP4's names: "name" by its standard, and the handler's, which players show.
    if title := source.metadata.get("title") or source.metadata.get("name"):
        result.metadata.update({"title": title, "handler_name": title})
    result.disposition = source.disposition


def _layout(stream: AudioStream) -> str:
    """Where the channels stand. A file that does not say so means the usual places."""
    name = stream.layout.name
    if stream.channels > _MAX_CHANNELS:
        return "stereo"
    return _USUAL_LAYOUTS[stream.channels] if name.endswith("channels") else name


_USUAL_LAYOUTS: Final = {
    1: "mono",
    2: "stereo",
    3: "2.1",
    4: "4.0",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}


def _is_lossless(stream: AudioStream) -> bool:
    codec = stream.codec_context.codec.canonical_name
    return codec.startswith("pcm_") or codec in ("flac", "alac", "truehd", "mlp", "wavpack", "tta", "ape")


def _bits(stream: AudioStream) -> int:
    """Bits of a sample; what is lossy, or floating point, deserves more than 16."""
    sample_format = stream.format.name if stream.format else "s16"
    return 16 if sample_format.rstrip("p") in ("s16", "u8") else 24
