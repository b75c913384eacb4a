"""Subtitles that do not begin and end with the picture."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from gpu_worker.contract import Output
from tests import samples
from tests.gpu_worker.test_tracks import restored

pytestmark = pytest.mark.services

_TEXTS = """1
00:00:00,000 --> 00:00:00,500
Over before the picture

2
00:00:01,000 --> 00:00:02,400
There with the first picture

3
00:00:02,600 --> 00:00:03,500
There with the last picture
"""


@pytest.fixture(params=["mkv", "mp4"])
def late_picture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A second of picture that begins two seconds after the file, whose texts do not wait for it."""
    (texts := tmp_path / "texts.srt").write_text(_TEXTS)
    film = ("-itsoffset", "2", "-i", samples.path("moving.mp4"))
    coded = ("-c:v", "copy", "-c:s", "srt" if request.param == "mkv" else "mov_text")
    return samples.run_ffmpeg(tmp_path / f"late.{request.param}", *film, "-i", texts, *coded)


def texts(path: Path) -> list[tuple[float, float, bytes]]:
    """Begin, end and the last word of each text."""
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(subtitles=0) if packet.size > 2]
        return [
            (
                float(one.pts * one.time_base),
                float((one.pts + one.duration) * one.time_base),
                bytes(one).split()[-2],
            )
            for one in found
        ]


@pytest.mark.parametrize("output", [Output.H264, Output.PRORES])
def test_texts_stay_with_the_picture(output: Output, late_picture: Path, tmp_path: Path) -> None:
    result, _ = restored(late_picture, tmp_path, output)
    assert texts(result) == [
        (0, pytest.approx(0.4, abs=0.001), b"first"),
        (pytest.approx(0.6, abs=0.001), pytest.approx(1.5, abs=0.001), b"last"),
    ]


def test_a_preview_shows_the_text_that_is_there_when_it_begins(late_picture: Path, tmp_path: Path) -> None:
    result, joined = restored(late_picture, tmp_path, frames=range(5, 20))
    assert texts(result) == [
        (0, pytest.approx(0.2, abs=0.001), b"first"),
        (pytest.approx(0.4, abs=0.001), pytest.approx(0.6, abs=0.001), b"last"),
    ]
    assert joined.measured.duration_seconds == pytest.approx(0.6, abs=0.001)
