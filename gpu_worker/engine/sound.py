"""Brings every sound track into the result: copied bit for bit where MP4 can hold it, else as AAC."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, Protocol, cast

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

logger = logging.getLogger(__name__)

#: Codecs that MP4 holds and players of MP4 know.
_COPIED: Final = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "dts"})
_AAC_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_BITS_A_CHANNEL: Final = 96_000
_MAX_CHANNELS: Final = 8


class Track(Protocol):
    """One sound track on its way."""

    def convert(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        """Yields what the result holds for a packet of the source."""

    def finish(self) -> Iterator[Packet[AudioStream]]:
        """Yields what was held back."""


class SoundTracks:
    """Reads the source's sound beside its video and writes it in step with the video.

    `num_lost` counts tracks that no decoder here knows. They are named in the log and in the report, never
    left out silently.
    """

    def __init__(self, source: Path, output: OutputContainer, *, start_seconds: Fraction) -> None:
        self._source: InputContainer = av.open(str(source))
        self._output = output
        self._start_seconds = start_seconds
        self._tracks: dict[int, Track] = {}
        self.num_lost = 0
        for stream in self._source.streams.audio:
            self._add(stream)
        self._packets = self._read()
        self._next: Packet[AudioStream] | None = next(self._packets, None)

    def advance(self, until_seconds: Fraction) -> None:
        """Writes the sound that belongs before a moment of the result."""
        while self._next is not None and self._moment(self._next) <= until_seconds:
            self._write(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Writes the rest of the sound."""
        while self._next is not None:
            self._write(self._next)
            self._next = next(self._packets, None)
        for track in self._tracks.values():
            for packet in track.finish():
                self._output.mux(packet)

    def close(self) -> None:
        """Closes the source."""
        self._source.close()

    def _add(self, stream: AudioStream) -> None:
        if stream.codec_context is None:
            self.num_lost += 1
            logger.warning("sound track %d is lost: no decoder for it", stream.index)
        # A decoder's name can differ from its codec's: "mp3float" decodes MP3.
        elif stream.codec_context.codec.canonical_name in _COPIED:
            self._tracks[stream.index] = CopiedTrack(stream, self._output, start_seconds=self._start_seconds)
        else:
            self._tracks[stream.index] = EncodedTrack(stream, self._output, start_seconds=self._start_seconds)

    def _read(self) -> Iterator[Packet[AudioStream]]:
        wanted = [stream for stream in self._source.streams.audio if stream.index in self._tracks]
        if not wanted:
            return
        for packet in self._source.demux(wanted):
            # The demuxer ends with an empty packet for each stream.
            if packet.dts is not None or packet.pts is not None:
                yield cast("Packet[AudioStream]", packet)

    def _moment(self, packet: Packet[AudioStream]) -> Fraction:
        timestamp = packet.dts if packet.dts is not None else packet.pts
        assert timestamp is not None
        return timestamp * packet.time_base - self._start_seconds

    def _write(self, packet: Packet[AudioStream]) -> None:
        for converted in self._tracks[packet.stream_index].convert(packet):
            self._output.mux(converted)


class CopiedTrack:
    """A track whose packets are the same bytes in the result."""

    def __init__(self, stream: AudioStream, output: OutputContainer, *, start_seconds: Fraction) -> None:
        self._stream = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        self._shift = round(start_seconds / stream.time_base)
        _copy_description(stream, self._stream)

    def convert(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        """Yields the packet itself, counted from the result's start."""
        # AVI gives its packets one moment only; sound is decoded in the order in which it is heard.
        decoded_at = packet.dts if packet.dts is not None else packet.pts
        shown_at = packet.pts if packet.pts is not None else packet.dts
        assert decoded_at is not None
        assert shown_at is not None
        packet.dts, packet.pts = decoded_at - self._shift, shown_at - self._shift
        packet.stream = self._stream
        yield packet

    def finish(self) -> Iterator[Packet[AudioStream]]:
        """Yields nothing: a copied track holds nothing back."""
        yield from ()


class EncodedTrack:
    """A track whose codec MP4 cannot hold, encoded anew as AAC."""

    def __init__(self, stream: AudioStream, output: OutputContainer, *, start_seconds: Fraction) -> None:
        self._source = stream
        rate = min(_AAC_RATES, key=lambda accepted: abs(accepted - stream.rate))
        self._encoder: AudioStream = output.add_stream("aac", rate=rate)
        layout = stream.layout.name if stream.channels <= _MAX_CHANNELS else "stereo"
        self._encoder.layout = layout
        self._encoder.bit_rate = _BITS_A_CHANNEL * min(stream.channels, _MAX_CHANNELS)
        self._resampler = AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)
        self._rate = rate
        self._start_seconds = start_seconds
        _copy_description(stream, self._encoder)

    def convert(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        """Yields the encoded packets that are ready; what cannot be decoded is left out and logged."""
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            logger.warning("sound track %d: a packet cannot be decoded", self._source.index)
            return
        for frame in frames:
            for resampled in self._resampler.resample(frame):
                yield from self._encode(resampled)

    def finish(self) -> Iterator[Packet[AudioStream]]:
        """Yields what the decoder, the resampler and the encoder still hold."""
        for frame in self._source.codec_context.decode(None):
            for resampled in self._resampler.resample(frame):
                yield from self._encode(resampled)
        for resampled in self._resampler.resample(None):
            yield from self._encode(resampled)
        yield from self._encoder.encode(None)

    def _encode(self, frame: av.AudioFrame) -> Iterator[Packet[AudioStream]]:
        if frame.pts is not None and frame.time_base is not None:
            frame.pts -= round(self._start_seconds / frame.time_base)
        yield from self._encoder.encode(frame)


def _copy_description(source: AudioStream, result: AudioStream) -> None:
    for key in ("language", "title"):
        if value := source.metadata.get(key):
            result.metadata[key] = value
