"""Recordings that were put behind each other into one file, each with a clock of its own."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from gpu_worker.contract import Output
from gpu_worker.engine.video import VideoSource
from tests import samples
from tests.gpu_worker.media_files import packets
from tests.gpu_worker.test_tracks import restored

pytestmark = pytest.mark.services

_NUM_FRAMES = 25


def recording(path: Path, *arguments: str | Path) -> bytes:
    """A second of picture and sound as a stream that others may be appended to."""
    return samples.run_ffmpeg(path, "-i", samples.path("sound_mp2.ts"), "-t", "1", *arguments).read_bytes()


@pytest.fixture(params=[("aac", "ts", "5400"), ("mp2", "ts", "5400"), ("mp2", "vob", "0")])
def joined(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three recordings; the second can have begun an hour and a half later than the others, by its clock."""
    codec, suffix, offset = request.param
    coded = ("-c:v", "mpeg2video", "-q:v", "3", "-c:a", codec)
    now, later = (
        recording(tmp_path / f"{name}.{suffix}", *coded, "-output_ts_offset", seconds)
        for name, seconds in (("now", "0"), ("later", offset))
    )
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(now + later + now)
    return path


def test_the_pictures_of_all_recordings_follow_each_other(joined: Path) -> None:
    with closing(VideoSource(joined)) as source:
        assert source.num_frames == 3 * _NUM_FRAMES
        assert source.timeline.rate == _NUM_FRAMES
        ticks = [picture.ticks for picture, _ in source.pictures()]
    first, length = ticks[0], source.timeline.frame_ticks
    assert ticks == [first + number * length for number in range(3 * _NUM_FRAMES)]


@pytest.mark.parametrize("output", [Output.H264, Output.PRORES])
def test_the_sound_of_each_recording_stays_with_its_pictures(
    joined: Path, output: Output, tmp_path: Path
) -> None:
    result, report = restored(joined, tmp_path, output)
    assert report.measured.duration_seconds == pytest.approx(3, abs=0.1)
    assert not [one for one in report.lost if one.kind == "audio"]
    sounds = [moment for moment, _ in packets(result, "audio")]
    gaps = [after - before for before, after in pairwise(sounds)]
    # What is missing at a joint is what the source has no sound for.
    assert Fraction(0) < min(gaps) <= max(gaps) < Fraction(1, 10)
    assert sounds[-1] == pytest.approx(3, abs=0.1)
