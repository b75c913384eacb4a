"""A job on a rank: segments in files, the same whoever makes them; cancelled, broken and gone on with."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import av
import pytest

from gpu_worker.contract import ErrorCode, Output, SegmentPlan, WorkerError
from gpu_worker.engine.alone import join_job, restore_alone
from gpu_worker.engine.cpu import CpuEngine
from gpu_worker.engine.job import Cancelled, Done, EngineJob, SegmentSpan
from gpu_worker.engine.joining import join_result
from gpu_worker.engine.work import bottleneck, run
from tests import samples

pytestmark = pytest.mark.services

ENGINE = CpuEngine()


class Listener:
    """Notes what a job tells, and cancels it after some frames when asked to."""

    def __init__(self, *, cancel_after: int | None = None) -> None:
        self.segments: dict[SegmentSpan, Path] = {}
        self.plans: dict[SegmentSpan, SegmentPlan | None] = {}
        self.num_done = 0
        self.num_expected = 0
        self.is_cancelled = False
        self._cancel_after = cancel_after

    def expect(self, num_frames: int) -> None:
        # Said again when the work begins anew with a smaller plan.
        assert self.num_done == 0 or num_frames == self.num_expected
        self.num_expected = num_frames

    def frames(self, num_done: int) -> None:
        assert num_done == self.num_done + 1
        self.num_done = num_done
        self.is_cancelled = self._cancel_after is not None and num_done >= self._cancel_after

    def segment(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        assert path.stat().st_size
        self.segments[span] = path
        self.plans[span] = plan

    def check(self) -> None:
        if self.is_cancelled:
            raise Cancelled


def job(folder: Path, name: str = "film_23976.mp4", **settings: object) -> EngineJob:
    values: dict[str, object] = {"width": 160, "height": 90, "segment_frames": 16, **settings}
    return EngineJob(source=samples.path(name), folder=folder, model="cpu", **values)


def pictures(result: Path) -> list[bytes]:
    """The frames of a result that loses nothing."""
    with zipfile.ZipFile(result) as archive:
        return [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".png")]


def work(task: EngineJob, *, rank: int = 0, world: int = 1, listener: Listener | None = None) -> Done:
    return run(task, ENGINE, rank=rank, world=world, events=listener or Listener())


def test_the_division_into_segments_does_not_show(tmp_path: Path) -> None:
    results = []
    for segment_frames in (16, 1000):
        result = tmp_path / f"{segment_frames}.zip"
        done, _ = restore_alone(
            job(tmp_path, output=Output.PNG, segment_frames=segment_frames), result, ENGINE
        )
        results.append((len(done.segments), pictures(result)))
    assert [number for number, _ in results] == [2, 1]
    assert results[0][1] == results[1][1], (
        "bit for bit: every border has the context that the filters look at"
    )


def test_two_ranks_make_what_one_makes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    alone = Listener()
    # Small pictures come out of x264 with other bits now and then; ProRes has none of its freedom.
    done = work(job(folders[0], output=Output.PRORES), listener=alone)
    ranks = [Listener(), Listener()]
    said = [
        work(job(folders[1], output=Output.PRORES), rank=rank, world=2, listener=listener)
        for rank, listener in enumerate(ranks)
    ]
    assert said[0].segments == said[1].segments == done.segments
    assert ranks[0].segments.keys() | ranks[1].segments.keys() == alone.segments.keys()
    assert not ranks[0].segments.keys() & ranks[1].segments.keys()
    for one, other in zip(*(sorted(folder.iterdir()) for folder in folders), strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


@pytest.mark.parametrize("name", ["telecined.mpg", "telecined.mkv"])
def test_what_will_come_out_is_told_before_it_does(name: str, tmp_path: Path) -> None:
    with av.open(str(samples.path(name))) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 60
    listener = Listener()
    done = work(job(tmp_path, name), listener=listener)
    assert listener.num_expected == done.num_frames == listener.num_done == 48


def test_what_is_done_is_left_out_and_the_rest_is_the_same(tmp_path: Path) -> None:
    task = job(tmp_path, output=Output.PRORES)
    done = work(task)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    missing = sorted(tmp_path.iterdir())[1]
    missing.unlink()
    listener = Listener()
    again = work(task.without((done.segments[0], *done.segments[2:])), listener=listener)
    assert again.segments == done.segments
    assert list(listener.segments) == [done.segments[1]]
    assert listener.num_done == done.segments[1].num_frames
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_preview_is_a_part_of_the_whole_run(tmp_path: Path) -> None:
    span = (20, 32)
    task = job(tmp_path, output=Output.PNG, span=span)
    listener = Listener()
    done = work(task, listener=listener)
    assert done.span_ticks is not None
    (segment,) = done.segments
    assert (segment.start, segment.num_frames) == (21, 12)  # moved on to where a latent of the shot ends
    result = tmp_path / "preview.zip"
    report = join_result(join_job(task, done, listener.segments, result), lambda _num: None)
    assert report.num_frames == segment.num_frames
    whole = tmp_path / "whole.zip"
    restore_alone(job(tmp_path, output=Output.PNG, pins=(span,)), whole, ENGINE)
    assert pictures(result) == pictures(whole)[segment.start : segment.end]


def test_a_cancelled_job_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    listener = Listener(cancel_after=3)
    with pytest.raises(Cancelled):
        work(job(tmp_path), listener=listener)
    assert listener.num_done < 20
    assert threading.active_count() == before


def test_an_encoder_that_fails_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises((WorkerError, OSError)):
        work(job(tmp_path / "missing"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("reader", "encoder"))]


def test_a_source_that_is_no_video_ends_the_job(tmp_path: Path) -> None:
    source = tmp_path / "notes.mp4"
    source.write_text("no video")
    with pytest.raises(WorkerError) as raised:
        work(EngineJob(source=source, folder=tmp_path, model="cpu", width=64, height=64))
    assert raised.value.code is ErrorCode.SOURCE_UNREADABLE


@pytest.mark.parametrize(
    ("decode", "restore", "encode", "said"),
    [(1, 9.5, 5, ""), (1, 4, 9.5, "encoder"), (9.5, 4, 2, "reading"), (4, 5, 4.9, "")],
)
def test_the_stage_that_holds_up_the_others_is_named(
    decode: float, restore: float, encode: float, said: str
) -> None:
    sentence = bottleneck({"decode": decode, "restore": restore, "encode": encode, "total": 10})
    assert said in sentence
    assert bool(said) == bool(sentence)
