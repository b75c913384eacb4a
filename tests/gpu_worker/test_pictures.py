"""Pictures out of a file and into another: the same colors, upright, whatever matrix and range the file has."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from gpu_worker.contract import Output
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource
from tests import samples
from tests.gpu_worker.test_cpu_engine import distance, first_picture


@pytest.mark.parametrize(
    "name", ["rotated_90.mp4", "full_range.mov", "rgb.mkv", "tagged_bt709.mp4", "chroma_444.mp4", "gray.mkv"]
)
def test_colors_survive_the_way_through_rgb(name: str, tmp_path: Path) -> None:
    result = tmp_path / "result.mp4"
    with closing(VideoSource(samples.path(name))) as source:
        pictures = [picture for picture, _ in islice(source.pictures(), 3)]
        height, width = pictures[0].size
        result_format = ResultFormat.of(source, Output.H264, width=width, height=height)
        with closing(SegmentWriter(result, result_format)) as writer:
            for picture in pictures:
                writer.write(picture.pixels, picture.ticks)
            writer.finish()
    # What the encoder and 4:2:0 lose; a wrong matrix, range or turn is several times as much.
    assert distance(first_picture(samples.path(name)), first_picture(result)) < 3.5


def test_deinterlacing_keeps_every_moment() -> None:
    with closing(VideoSource(samples.path("interlaced.mp4"))) as source:
        wanted = [ticks for _, ticks in source.frames()]
    with closing(VideoSource(samples.path("interlaced.mp4"))) as source:
        assert [picture.ticks for picture, _ in source.pictures()] == wanted
