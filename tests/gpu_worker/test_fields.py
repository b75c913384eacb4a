"""Interlaced and telecined video: seen in the pictures, and progressive afterwards."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from gpu_worker.contract import Frames
from gpu_worker.engine.alone import restore_alone
from gpu_worker.engine.cpu import CpuEngine
from gpu_worker.engine.fields import Fields, Scan, Verdict, find_fields, is_telecined
from gpu_worker.engine.job import EngineJob
from gpu_worker.engine.progressive import without_repeats
from gpu_worker.engine.video import VideoSource
from tests import samples

pytestmark = pytest.mark.services


@pytest.mark.parametrize(
    ("name", "scan", "is_top_first"),
    [
        ("film.mkv", Scan.PROGRESSIVE, True),
        ("telecined.mkv", Scan.TELECINED, True),
        ("telecined.mpg", Scan.TELECINED, False),
        ("telecined_10bit.mkv", Scan.TELECINED, True),
        ("interlaced.mp4", Scan.INTERLACED, True),
        ("interlaced_bottom.mpg", Scan.INTERLACED, False),
        ("interlaced_untold.mkv", Scan.INTERLACED, True),
        ("film_on_tape.mpg", Scan.PROGRESSIVE, True),
        ("grain.mkv", Scan.PROGRESSIVE, True),
        ("bigbuckbunny.mp4", Scan.PROGRESSIVE, True),
        ("carphone_distorted.mp4", Scan.PROGRESSIVE, True),
        ("single_frame.mp4", Scan.PROGRESSIVE, True),
    ],
)
def test_the_pictures_tell_how_they_were_taken(name: str, scan: Scan, is_top_first: bool) -> None:
    assert find_fields(samples.path(name)) == Fields(scan=scan, is_top_first=is_top_first)


def lumas(name: str) -> list[np.ndarray]:
    with closing(VideoSource(samples.path(name))) as source:
        return [frame.to_ndarray(format="gray").astype(int) for frame, _ in source.frames()]


def coded_lumas(name: str) -> list[np.ndarray]:
    """The frames as the file has them, decoded by PyAV alone."""
    with av.open(str(samples.path(name))) as container:
        return [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]


def test_telecined_film_gets_its_own_frames_back() -> None:
    film, found = lumas("film.mkv"), lumas("telecined.mkv")
    assert len(found) == len(film) == 48
    for one, other in zip(film, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["telecined.mpg", "telecined_10bit.mkv"])
def test_coded_telecined_film_has_no_combs_and_no_repeats(name: str) -> None:
    film, found = lumas("film.mkv"), lumas(name)
    assert len(found) == len(film)
    for number, one in enumerate(found):
        near = range(max(0, number - 1), min(len(film), number + 2))
        assert min(near, key=lambda other: np.abs(one - film[other]).mean()) == number
    assert combing(found) < 1.1 * combing(film) < 0.9 * combing(coded_lumas(name))


def test_film_stands_on_its_own_grid() -> None:
    with closing(VideoSource(samples.path("telecined.mpg"))) as source:
        ticks = [ticks for _, ticks in source.frames()]
        assert source.num_frames == len(ticks) == 48
        assert source.timeline.rate == Fraction(24000, 1001)
        assert {later - earlier for earlier, later in pairwise(ticks)} == {source.timeline.frame_ticks}


@pytest.mark.parametrize(("frames", "seconds"), [((20, 40), 20 / 29.97), ((50, 60), 50 / 29.97)])
def test_a_range_of_telecined_film_lies_where_its_frames_lie_in_the_file(
    frames: Frames, seconds: float, tmp_path: Path
) -> None:
    job = EngineJob(
        source=samples.path("telecined.mkv"), folder=tmp_path, model="cpu", width=96, height=64, span=frames
    )
    _, report = restore_alone(job, tmp_path / "result", CpuEngine())
    # A range begins and ends where a latent of four frames does.
    assert report.start_seconds == pytest.approx(seconds, abs=4 / 23.976)
    assert report.num_frames == pytest.approx((frames[1] - frames[0]) * 4 / 5, abs=4)


@pytest.mark.parametrize("name", ["interlaced.mp4", "interlaced_bottom.mpg", "interlaced_untold.mkv"])
def test_an_interlaced_video_has_no_combs_left(name: str) -> None:
    coded, progressive = coded_lumas(name), lumas(name)
    assert len(progressive) == len(coded)
    assert combing(progressive) < 0.9 * combing(coded)


def combing(frames: list[np.ndarray]) -> float:
    """How much lines differ from their neighbors more than from the lines beyond."""
    luma = np.stack(frames)
    return float(np.abs(luma[:, 1:-1] - luma[:, :-2]).mean() / np.abs(luma[:, 2:] - luma[:, :-2]).mean())


@pytest.mark.parametrize("name", ["film.mkv", "film_on_tape.mpg", "grain.mkv"])
def test_progressive_frames_are_left_as_they_are(name: str) -> None:
    with av.open(str(samples.path(name))) as container:
        coded = [frame.to_ndarray() for frame in container.decode(video=0)]
    with closing(VideoSource(samples.path(name))) as source:
        found = [frame.to_ndarray() for frame, _ in source.frames()]
    np.testing.assert_array_equal(coded, found)


def test_repeats_by_chance_are_no_telecine() -> None:
    moving = Verdict(is_progressive=False, is_top_first=True, repeated="")
    once = Verdict(is_progressive=False, is_top_first=True, repeated="top")
    assert not is_telecined([moving] * 25)
    assert not is_telecined([once if number % 5 == 0 else moving for number in range(25)])
    assert not is_telecined([once if number % 3 == 0 else moving for number in range(25)])


@pytest.mark.parametrize("num_frames", [1, 4, 5, 6, 9, 10, 14])
def test_five_frames_become_four_and_the_rest_stays(num_frames: int) -> None:
    def frame(number: int) -> VideoFrame:
        # The third of five is there twice.
        seen = number - 1 if number % 5 == 3 else number
        return VideoFrame.from_ndarray(np.full((32, 32), 10 * seen, np.uint8), format="gray")

    frames = iter([(frame(number), number * 800) for number in range(num_frames)])
    found = [(int(one.to_ndarray()[0, 0]), at) for one, at in without_repeats(frames, frame_ticks=1000)]
    complete = num_frames // 5 * 5
    rest = num_frames - complete
    wanted = [
        (10 * number, 4000 * cycle + 1000 * place)
        for cycle in range(num_frames // 5)
        for place, number in enumerate(5 * cycle + step for step in (0, 1, 2, 4))
    ]
    assert found[: len(wanted)] == wanted
    assert [at for _, at in found[len(wanted) :]] == [complete * 800 + 1000 * place for place in range(rest)]
