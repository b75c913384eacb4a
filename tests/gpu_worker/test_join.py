"""Segments and their joining: what comes out is what went in, packet by packet, each frame at its moment."""

from __future__ import annotations

import zipfile
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from gpu_worker.contract import ErrorCode, Output, WorkerError
from gpu_worker.engine.errors import writing
from gpu_worker.engine.formats import ResultFormat, encoder_fingerprint
from gpu_worker.engine.join import Joined, Span, join
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource
from tests import samples

pytestmark = pytest.mark.services

MOVIES = [Output.H264, Output.H265, Output.PRORES]


class Job:
    """One source cut into segments of 16 frames and joined."""

    def __init__(
        self, name: str, folder: Path, output: Output, *, frames: tuple[int, int] | None = None
    ) -> None:
        self.source_path = samples.path(name)
        with closing(VideoSource(self.source_path)) as source:
            self.pictures = [picture for picture, _ in source.pictures()]
            height, width = self.pictures[0].size
            self.format = ResultFormat.of(source, output, width=width - width % 2, height=height - height % 2)
            chosen = range(*frames) if frames else range(len(self.pictures))
            ends = [*(picture.ticks for picture in self.pictures[1:]), None]
            self.segments: list[Path] = []
            for start in range(chosen.start, chosen.stop, 16):
                numbers = range(start, min(start + 16, chosen.stop))
                path = folder / f"segment-{start}{self.format.segment_suffix}"
                with closing(SegmentWriter(path, self.format, first_frame=start)) as writer:
                    for number in numbers:
                        picture = self.pictures[number]
                        pixels = picture.pixels[: self.format.height, : self.format.width]
                        writer.write(pixels, picture.ticks, alpha=picture.alpha)
                    writer.finish(ends[numbers[-1]])
                assert writer.num_frames == len(numbers)
                self.segments.append(path)
            self.path = folder / f"result{self.format.result_suffix}"
            span = None
            if frames:
                last = self.pictures[chosen[-1]].ticks + self.format.frame_ticks
                span = Span(self.pictures[chosen[0]].ticks, last)
            self.joined: Joined = join(
                self.segments, self.path, source=source, result_format=self.format, span=span
            )


def video_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def moments(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return sorted(packet.pts * packet.time_base for packet in container.demux(video=0) if packet.size)


@pytest.mark.parametrize("output", MOVIES)
@pytest.mark.parametrize("name", ["ntsc_2997.mp4", "vfr.mkv"])
def test_joining_changes_no_packet_and_no_moment(name: str, output: Output, tmp_path: Path) -> None:
    job = Job(name, tmp_path, output)
    assert len(job.segments) > 2
    assert video_packets(job.path) == [
        packet for segment in job.segments for packet in video_packets(segment)
    ]
    wanted = [picture.ticks * job.format.time_base for picture in job.pictures]
    assert moments(job.path) == wanted
    with av.open(str(job.path)) as container:
        decoded_at = [packet.dts for packet in container.demux(video=0) if packet.size]
    assert all(before < after for before, after in pairwise(decoded_at))


@pytest.mark.parametrize("output", MOVIES)
def test_a_segment_plays_by_itself_and_at_its_moments(output: Output, tmp_path: Path) -> None:
    job = Job("ntsc_2997.mp4", tmp_path, output)
    with av.open(str(job.path)) as container:
        whole = [frame.to_ndarray() for frame in container.decode(video=0)]
    number = 0
    for segment in job.segments:
        with av.open(str(segment)) as container:
            for frame in container.decode(video=0):
                moment = frame.pts * frame.time_base
                assert moment == job.pictures[number].ticks * job.format.time_base
                # Closed groups: what is seen does not depend on the segments around it.
                np.testing.assert_array_equal(frame.to_ndarray(), whole[number])
                number += 1
    assert number == len(whole) == len(job.pictures)


def test_the_same_pictures_give_the_same_segment(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a", "b"))
    first.mkdir()
    second.mkdir()
    one, other = (Job("pal_25.mp4", folder, Output.H264) for folder in (first, second))
    assert [path.read_bytes() for path in one.segments] == [path.read_bytes() for path in other.segments]
    assert encoder_fingerprint(Output.H264) != encoder_fingerprint(Output.H265)


def test_a_preview_begins_at_zero_with_its_own_sound(tmp_path: Path) -> None:
    job = Job("pal_25.mp4", tmp_path, Output.H264, frames=(20, 40))
    assert moments(job.path) == [Fraction(number, 25) for number in range(20)]
    start = end = Fraction(20, 25)
    cut = [(at - start, content) for at, content in sound(job.source_path) if 0 <= at - start < end]
    found = sound(job.path)
    assert [content for _, content in found] == [content for _, content in cut]
    assert abs(found[0][0] - cut[0][0]) < Fraction(1, 1000)


def test_a_sequence_holds_every_picture_without_loss(tmp_path: Path) -> None:
    job = Job("ntsc_2997.mp4", tmp_path, Output.PNG)
    assert (job.joined.measured.num_frames, job.joined.measured.num_audio_tracks) == (60, 1)
    with zipfile.ZipFile(job.path) as archive:
        names = archive.namelist()
        assert names == [*(f"frames/{n:08d}.png" for n in range(1, 61)), "timestamps.txt", "sound.mka"]
        assert {member.compress_type for member in archive.infolist()[:60]} == {zipfile.ZIP_STORED}
        lines = archive.read("timestamps.txt").decode().split("\n")
        assert lines[:3] == ["# timestamp format v2", "0.000000", "33.366667"]
        for number in (0, 59):
            (tmp_path / "picture.png").write_bytes(archive.read(names[number]))
            with av.open(str(tmp_path / "picture.png")) as container:
                pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
            np.testing.assert_array_equal(pixels, job.pictures[number].pixels)
        (tmp_path / "sound.mka").write_bytes(archive.read("sound.mka"))
    kept, wanted = sound(tmp_path / "sound.mka"), sound(job.source_path)
    assert [content for _, content in kept] == [content for _, content in wanted]


def sound(path: Path) -> list[tuple[Fraction, bytes]]:
    """Returns the packets of the first sound track with their moments."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


def test_segments_of_two_encoders_are_not_joined(tmp_path: Path) -> None:
    job = Job("pal_25.mp4", tmp_path, Output.H264)
    other = tmp_path / "other"
    other.mkdir()
    stranger = Job("narrow.ts", other, Output.H264)
    with closing(VideoSource(job.source_path)) as source, pytest.raises(WorkerError) as raised:
        join([*job.segments, *stranger.segments], tmp_path / "x.mp4", source=source, result_format=job.format)
    assert raised.value.code is ErrorCode.ENGINE_FAILED


def test_segments_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    job = Job("pal_25.mp4", tmp_path, Output.H264)
    with closing(VideoSource(job.source_path)) as source, pytest.raises(WorkerError, match="before"):
        join(job.segments[::-1], tmp_path / "x.mp4", source=source, result_format=job.format)


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    with closing(VideoSource(samples.path("pal_25.mp4"))) as source:
        result_format = ResultFormat.of(source, Output.H264, width=320, height=180)
        pictures = [picture for picture, _ in source.pictures()]

    def write() -> None:
        with writing(), closing(SegmentWriter(Path("/dev/full"), result_format)) as writer:
            for picture in pictures:
                writer.write(picture.pixels, picture.ticks)
            writer.finish()

    with pytest.raises(WorkerError) as raised:
        write()
    assert raised.value.code is ErrorCode.OUT_OF_DISK
