"""A result is as long as its source, however long the last frame is shown."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import pytest

from gpu_worker.contract import Output
from gpu_worker.engine.alone import restore_alone
from gpu_worker.engine.cpu import CpuEngine
from gpu_worker.engine.job import EngineJob
from gpu_worker.engine.timeline import find_timeline
from tests import samples

pytestmark = pytest.mark.services


@pytest.mark.parametrize("output", [Output.H264, Output.H265, Output.PRORES])
@pytest.mark.parametrize(("name", "seconds"), [("end_card.gif", 3.9), ("slides.mkv", 11), ("pal_50.mkv", 1)])
def test_the_last_frame_is_shown_as_long_as_in_the_source(
    name: str, seconds: float, output: Output, tmp_path: Path
) -> None:
    job = EngineJob(
        source=samples.path(name), folder=tmp_path, model="cpu", width=96, height=64, output=output
    )
    whole = dataclasses.replace(job, span=(0, 2**20))
    for number, one in enumerate([job, whole]):
        _, report = restore_alone(one, tmp_path / f"result-{number}", CpuEngine())
        assert report.duration_seconds == pytest.approx(seconds, abs=0.001)
        with av.open(report.path) as container:
            stream = container.streams.video[0]
            assert stream.duration * stream.time_base == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize("length", [0, 61_000, -5])
def test_a_length_that_nobody_can_mean_counts_as_none(length: int) -> None:
    found = find_timeline(
        [0, 40, 80, 120],
        unit=Fraction(1, 1000),
        declared_rates=[Fraction(25)],
        start_seconds=Fraction(0),
        last_length=length,
    )
    assert found.last_frame_ticks == found.frame_ticks
