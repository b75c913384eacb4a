"""Finished segments on the site's side: addresses for workers, resuming, the finished part, deletion."""

import hashlib
import io
import json
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import av
import pytest
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.contract import ErrorCode, Journal, JournalEntry, Output
from gpu_worker.engine.formats import ResultFormat
from gpu_worker.engine.segment_writer import SegmentWriter
from gpu_worker.engine.video import VideoSource
from restorations import dispatch, lifecycle, objects, partial, repair, retention, segments, tasks
from restorations.doorbells import Doorbell
from restorations.models import Restoration, Video
from restorations.runpod import JobState, JobStatus
from tests import samples
from tests.factories import AttemptFactory, RestorationFactory
from tests.restorations.test_lifecycle import deliver, running

pytestmark = pytest.mark.django_db
Status = Restoration.Status
SOURCE = "pal_25.mp4"
ENDS = (20, 35, 50)


@given(st.integers(1, 10**7))
def test_segments_are_long_enough_and_never_too_many(num_frames):
    assert segments.frames_of_segment(num_frames) >= 120
    assert segments.num_segments(num_frames) <= 240
    assert segments.num_segments(num_frames) * segments.frames_of_segment(num_frames) >= num_frames


def order(*, num_frames=1000):
    return RestorationFactory(video__num_frames=num_frames, num_frames=num_frames)


def sent(restoration):
    """Returns what the next attempt is sent."""
    return dispatch._request(lifecycle.open_attempt(restoration.pk))


def test_a_retry_gets_the_addresses_of_the_same_segments(settings):
    restoration = order()
    first = sent(restoration).segments
    assert (first.frames, len(first.put), len(first.get)) == (120, 9, 9)
    attempt = restoration.attempts.get()
    lifecycle.attempt_accepted(attempt, "job-1")
    dispatch.apply_status(attempt, JobStatus(state=JobState.FAILED, error="worker_lost: gone"))
    restoration.refresh_from_db()
    assert sent(restoration).segments == first
    assert restoration.attempts.count() == 2
    assert f"/{restoration.pk}/" in segments.key_of(restoration, 3)
    assert segments.key_of(restoration, 3).startswith(f"{restoration.workspace_id}/")


def test_a_short_video_has_nothing_to_go_on_after():
    restoration = order(num_frames=100)
    assert sent(restoration).segments is None
    restoration.refresh_from_db()
    assert restoration.num_segment_objects == 0


def test_progress_counts_parts():
    attempt = AttemptFactory(restoration__status=Status.SUBMITTED)
    report = running(attempt, frames=30, sequence=1)
    report.output.update(num_segments_done=2, num_segments=7)
    dispatch.apply_status(attempt, report)
    restoration = Restoration.objects.get()
    assert (restoration.num_segments_done, restoration.num_segments) == (2, 7)


@pytest.fixture(scope="module")
def finished():
    """Three real segments of a real video: the files, and the journal that names them."""
    files, entries = [], []
    with tempfile.TemporaryDirectory() as folder, closing(VideoSource(samples.path(SOURCE))) as source:
        result_format = ResultFormat.of(source, Output.H264, width=64, height=48)
        frames = source.frames()
        start = 0
        for index, end in enumerate(ENDS):
            path = Path(folder) / f"{index}.mp4"
            with closing(SegmentWriter(path, result_format, first_frame=start)) as writer:
                for _ in range(end - start):
                    frame, ticks = next(frames)
                    writer.write(frame.reformat(64, 48, "yuv420p"), ticks)
                writer.finish()
            content = path.read_bytes()
            files.append(content)
            sha256 = hashlib.sha256(content).hexdigest()
            entries.append(JournalEntry(index=index, start=start, end=end, bytes=len(content), sha256=sha256))
            start = end
    return files, entries


@pytest.fixture
def halfway(finished):
    """A running restoration whose first two of three segments, and the third, are in storage."""
    restoration = RestorationFactory(
        res_w=64, res_h=48, status=Status.RUNNING, num_frames=50, num_frames_done=35, num_segment_objects=4
    )
    objects.save(restoration.video.storage_key, io.BytesIO(samples.path(SOURCE).read_bytes()))
    files, _entries = finished
    for index, content in enumerate(files):
        objects.save(segments.key_of(restoration, index), io.BytesIO(content))
    return restoration


def write_journal(restoration, entries):
    journal = Journal(fingerprint="0" * 64, segments=tuple(entries))
    content = json.dumps(journal.to_json()).encode()
    objects.save(f"{restoration.workspace_id}/segments/{restoration.pk}/journal.json", io.BytesIO(content))


def left_over(restoration):
    """Returns the keys under which segments still lie."""
    return [key.key for key in objects.walk() if key.key.startswith(f"{restoration.workspace_id}/segments/")]


def ended(restoration):
    restoration.refresh_from_db()
    assert restoration.num_segment_objects == 0
    assert left_over(restoration) == []
    return restoration


def answer(callbacks):
    """Does what a Celery worker does when the bell for the finished part rings."""
    rings = [callback.args for callback in callbacks if callback.args[0] is Doorbell.KEEP_PARTIAL]
    assert len(rings) == 1
    tasks.keep_partial(**rings[0][1])


@pytest.mark.parametrize("how", ["cancel", "fail"])
def test_the_finished_part_stays(halfway, finished, alice, django_capture_on_commit_callbacks, how):
    write_journal(halfway, finished[1][:2])
    with django_capture_on_commit_callbacks() as callbacks:
        if how == "cancel":
            lifecycle.cancel(halfway, actor=alice)
        else:
            lifecycle.fail(halfway, ErrorCode.WORKER_LOST)
    answer(callbacks)
    restoration = ended(halfway)
    assert (restoration.partial_frames, restoration.has_partial) == (35, True)
    assert restoration.expires_at > timezone.now() + timedelta(minutes=50)
    with objects.local_copy(restoration.partial_key) as path, av.open(str(path)) as result:
        assert path.stat().st_size == restoration.partial_bytes
        assert (result.streams.video[0].width, result.streams.video[0].frames) == (64, 35)
        video_seconds = 35 / 25
        for track in result.streams.audio:
            assert float(track.duration * track.time_base) == pytest.approx(video_seconds, abs=0.05)


def test_it_is_joined_on_the_disk_of_files_and_not_in_memory(halfway, finished, alice, monkeypatch):
    """In production /tmp is a part of the memory, and a film does not fit there."""
    write_journal(halfway, finished[1][:2])
    lifecycle.cancel(halfway, actor=alice)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    partial.keep(halfway.pk)
    assert ended(halfway).partial_frames == 35


@pytest.mark.parametrize(
    ("spoil", "frames"),
    [
        (lambda entries: entries[1:], 0),
        (lambda entries: [entries[0], entries[2]], 20),
        (lambda entries: [entries[0], JournalEntry(**{**entries[1].to_json(), "sha256": "0" * 64})], 20),
        (lambda entries: [], 0),
    ],
    ids=["without-the-first", "with-a-gap", "with-a-wrong-one", "empty"],
)
def test_only_what_follows_from_the_first_frame_on_is_joined(halfway, finished, alice, spoil, frames):
    write_journal(halfway, spoil(finished[1]))
    lifecycle.cancel(halfway, actor=alice)
    partial.keep(halfway.pk)
    assert ended(halfway).partial_frames == frames


def test_a_part_that_cannot_be_joined_is_tried_again_and_then_given_up(halfway, finished, alice):
    write_journal(halfway, finished[1][:1])
    objects.delete([halfway.video.storage_key])
    lifecycle.cancel(halfway, actor=alice)
    partial.keep(halfway.pk)
    assert left_over(halfway)
    Restoration.objects.filter(pk=halfway.pk).update(status_at=timezone.now() - timedelta(hours=2))
    partial.keep(halfway.pk)
    assert not ended(halfway).has_partial


def test_a_join_that_is_killed_each_time_is_given_up_after_a_day(halfway, finished, alice):
    """It never comes to the end at which it would be given up after an hour."""
    write_journal(halfway, finished[1])
    lifecycle.cancel(halfway, actor=alice)
    Restoration.objects.update(status_at=timezone.now() - timedelta(days=1) - timedelta(minutes=1))
    partial.keep(halfway.pk)
    assert not ended(halfway).has_partial


def test_a_lost_ring_for_the_finished_part_is_rung_again(
    halfway, finished, alice, django_capture_on_commit_callbacks
):
    write_journal(halfway, finished[1])
    lifecycle.cancel(halfway, actor=alice)
    Restoration.objects.filter(pk=halfway.pk).update(status_at=timezone.now() - timedelta(minutes=40))
    with django_capture_on_commit_callbacks() as callbacks:
        repair.repair()
        repair.repair()
    answer(callbacks)
    assert ended(halfway).partial_frames == 50


@pytest.mark.services
def test_two_rings_at_once_join_once(bucket, halfway, finished, alice, monkeypatch):
    """The first to finish deletes the segments: the second would join fewer of them, and replace the whole part."""
    write_journal(halfway, finished[1])
    lifecycle.cancel(halfway, actor=alice)
    sha256 = objects.sha256

    def rung_meanwhile(key):
        if key == segments.key_of(halfway, 1):
            monkeypatch.setattr(objects, "sha256", sha256)
            tasks.keep_partial(restoration_id=str(halfway.pk))
        return sha256(key)

    monkeypatch.setattr(objects, "sha256", rung_meanwhile)
    tasks.keep_partial(restoration_id=str(halfway.pk))
    assert ended(halfway).partial_frames == 50


def test_the_finished_part_is_downloaded_deleted_and_expires(halfway, finished, alice_client, workspace):
    Restoration.objects.filter(pk=halfway.pk).update(workspace=workspace)
    Video.objects.filter(pk=halfway.video_id).update(workspace=workspace)
    halfway.refresh_from_db()
    objects.save("somewhere", io.BytesIO(b"a part"))
    part = {"status": Status.CANCELLED, "partial_key": "somewhere", "partial_frames": 35}
    Restoration.objects.filter(pk=halfway.pk).update(**part, expires_at=timezone.now(), num_segment_objects=0)
    page = alice_client.get(halfway.get_absolute_url())
    assert b"The first 35 of 50 frames" in page.content
    address = reverse("restoration-download", args=[workspace.slug, halfway.pk])
    assert "somewhere" in alice_client.get(address).headers["location"]

    retention.enforce()
    halfway.refresh_from_db()
    assert (halfway.has_partial, objects.exists("somewhere")) == (False, False)
    assert alice_client.get(address).status_code == 404


def test_segments_go_when_the_result_is_there(finished):
    attempt = AttemptFactory(restoration__status=Status.SUBMITTED, restoration__num_segment_objects=4)
    restoration = attempt.restoration
    objects.save(segments.key_of(restoration, 0), io.BytesIO(finished[0][0]))
    write_journal(restoration, finished[1][:1])
    deliver(attempt)
    lifecycle.settle(attempt, otherwise=None)
    retention.purge()
    assert ended(restoration).status == Status.SUCCEEDED
