"""Three seconds at the final settings: ordered like the whole, and taken off its price once (P1)."""

import io
import json
import threading
from datetime import timedelta

import pytest
from django.core import mail
from django.db import connection, connections, transaction
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from accounts import scope
from billing import ledger
from gpu_worker.contract import ErrorCode, Journal, JournalEntry
from restorations import (
    dispatch,
    lifecycle,
    objects,
    repair,
    retention,
    segments,
    snippets,
    submission,
    tasks,
)
from restorations.models import Restoration, Video
from restorations.options import Options
from restorations.quotes import quote
from restorations.runpod import JobState, JobStatus
from tests.factories import VideoFactory
from tests.restorations.test_lifecycle import deliver, running

pytestmark = pytest.mark.django_db
Status = Restoration.Status
OPTIONS = Options(preset="720p", seed=42)
#: Of 300 frames at 960 x 720, and of 75.
WHOLE, PREVIEW = 21, 6
RANGE = (50, 125)


@pytest.fixture
def video(workspace):
    """Twelve seconds."""
    return VideoFactory(workspace=workspace, num_frames=300, duration_seconds=12.0)


def order(video, alice, options=OPTIONS, **more):
    return submission.submit(video=video, user=alice, options=options, **more)


def sent(restoration):
    """Returns the open attempt and what a worker is sent."""
    attempt = lifecycle.open_attempt(restoration.pk)
    request = dispatch._request(attempt)
    lifecycle.attempt_accepted(attempt, f"job-{attempt.pk}")
    return attempt, request


def finish(restoration, **manifest):
    attempt, _request = sent(restoration)
    deliver(attempt, **({"num_frames": restoration.num_frames} | manifest))
    dispatch.apply_status(attempt, JobStatus(state=JobState.COMPLETED))
    restoration.refresh_from_db()
    assert restoration.status == Status.SUCCEEDED
    return restoration


@pytest.fixture
def preview(video, alice):
    """A preview that is done."""
    return finish(order(video, alice, frames=RANGE), start_seconds=2.12)


def post(client, name, video, **form):
    address = reverse(name, args=[video.workspace.slug, video.pk])
    return client.post(address, {"preset": "720p", "seed": 42} | form)


# --- Which frames ---------------------------------------------------------------------------------------------


@given(
    num_frames=st.integers(1, 10**6),
    rate=st.sampled_from(["24000/1001", "25/1", "30000/1001", "60/1", "2/5"]),
    is_interlaced=st.booleans(),
    seconds=st.floats(0, 10**6),
)
def test_a_preview_lies_inside_its_video(num_frames, rate, is_interlaced, seconds):
    video = Video(num_frames=num_frames, frame_rate=rate, is_interlaced=is_interlaced)
    length = snippets.num_frames(video)
    if num_frames <= 3 * video.rate:
        assert length == 0
    if length:
        start, end = snippets.frames_from(video, seconds)
        assert 0 <= start < end <= num_frames
        assert end - start == length == max(1, round(3 * video.rate))
        assert 0 <= snippets.usual_start(video) <= snippets.latest_start(video)


@pytest.mark.parametrize(
    "facts", [{"num_frames": 75, "duration_seconds": 3.0}, {"is_image": True, "num_frames": 1}]
)
def test_a_video_of_three_seconds_offers_none(alice_client, workspace, facts):
    video = VideoFactory(workspace=workspace, **facts)
    page = alice_client.get(video.get_absolute_url()).content.decode()
    assert "Restore for" in page
    assert "Preview 3 seconds" not in page
    answer = post(alice_client, "video-preview", video)
    assert answer.status_code == 422
    assert "too short for a preview" in answer.content.decode()
    assert not Restoration.objects.exists()


# --- Ordering -------------------------------------------------------------------------------------------------


def test_a_preview_costs_its_frames_and_goes_the_way_of_every_order(alice_client, video, workspace):
    before = ledger.balance(workspace)
    page = alice_client.get(f"{video.get_absolute_url()}?preset=720p").content.decode()
    assert f"Preview 3 seconds for {PREVIEW} credits" in page
    answer = post(alice_client, "video-preview", video, preview_start="2")
    preview = Restoration.objects.get()
    assert answer.headers["location"] == preview.get_absolute_url()
    assert preview.price_credits == before - ledger.balance(workspace) == PREVIEW
    assert (preview.frames, preview.num_frames, preview.status) == (RANGE, 75, "queued")
    assert preview.expected_seconds < quote(video, OPTIONS).expected_seconds
    _attempt, request = sent(preview)
    assert (request.range, request.pins, request.num_frames) == (RANGE, (), 300)
    assert "preview from 0:02" in " ".join(
        alice_client.get(preview.get_absolute_url()).content.decode().split()
    )
    assert (
        "Preview from 0:02"
        in alice_client.get(reverse("restoration-list", args=[workspace.slug])).content.decode()
    )


@pytest.mark.parametrize("start", ["-1", "9.1", "soon"])
def test_a_start_outside_of_the_video_is_refused_with_what_is_accepted(alice_client, video, start):
    answer = post(alice_client, "video-preview", video, preview_start=start)
    assert answer.status_code == 422
    assert "errorlist" in answer.content.decode()
    assert not Restoration.objects.exists()


def test_the_same_preview_is_made_once_and_not_where_the_whole_is(preview, video, alice):
    with pytest.raises(submission.AlreadyRestored) as caught:
        order(video, alice, frames=RANGE)
    assert caught.value.restoration == preview
    whole = order(video, alice)
    with pytest.raises(submission.AlreadyRestored) as caught:
        order(video, alice, frames=(0, 75))
    assert caught.value.restoration == whole


def test_nobody_gets_a_mail_for_a_preview(preview, video, alice, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as bells:
        lifecycle.fail(order(video, alice, frames=(0, 75)), ErrorCode.ENGINE_FAILED)
        Restoration.objects.update(
            finished_at=timezone.now() - timedelta(minutes=5), expires_at=timezone.now() + timedelta(hours=5)
        )
        repair.repair()
        retention.enforce()
    assert bells
    assert not [bell for bell in bells if "mail" in str(bell.args[:1]).lower()]
    assert mail.outbox == []


# --- Money ----------------------------------------------------------------------------------------------------


def test_what_previews_cost_comes_off_the_whole_once(preview, video, alice, workspace):
    second = finish(order(video, alice, Options(preset="720p"), frames=(200, 275)))
    assert second.seed == 42, "without a seed, that of the preview that is there"
    offer = quote(video, Options(preset="720p"))
    assert (offer.credits, offer.preview_credits) == (WHOLE - 2 * PREVIEW, 2 * PREVIEW)
    before = ledger.balance(workspace)
    whole = order(video, alice, Options(preset="720p"), preview_credits=2 * PREVIEW)
    assert before - ledger.balance(workspace) == whole.price_credits == WHOLE - 2 * PREVIEW
    assert whole.seed == 42
    finish(whole)
    assert (whole.refunded_credits, ledger.balance(workspace)) == (0, before - WHOLE + 2 * PREVIEW)
    # Later, when the result is deleted, the same order costs all of it.
    lifecycle.expire(whole, actor=alice)
    assert quote(video, OPTIONS).credits == WHOLE


@pytest.mark.parametrize("other", [{"seed": 1}, {"preset": "1080p"}, {"strength": 50}, {"output": "prores"}])
def test_other_settings_make_other_pictures_and_cost_all_of_it(preview, video, other):
    options = Options(**({"preset": "720p", "seed": 42} | other))
    assert quote(video, options).preview_credits == 0


@pytest.mark.parametrize("end", ["fail", "cancel before it runs"])
def test_when_all_of_the_whole_comes_back_the_preview_counts_again(preview, video, alice, workspace, end):
    before = ledger.balance(workspace)
    whole = order(video, alice)
    if end == "fail":
        lifecycle.fail(whole, ErrorCode.ENGINE_FAILED)
    else:
        lifecycle.cancel(whole, actor=alice)
    assert ledger.balance(workspace) == before
    assert order(video, alice).price_credits == WHOLE - PREVIEW


def test_a_cancel_halfway_pays_no_frame_of_the_preview_and_keeps_its_price(preview, video, alice):
    whole = order(video, alice)
    attempt, _request = sent(whole)
    report = running(attempt, frames=75 + 45, sequence=1)
    report.output["num_frames"] = 300
    dispatch.apply_status(attempt, report)
    lifecycle.cancel(whole, actor=alice)
    whole.refresh_from_db()
    # A fifth of the 225 frames that were not in the preview.
    assert whole.price_credits - whole.refunded_credits == (WHOLE - PREVIEW) // 5
    assert order(video, alice).price_credits == WHOLE


def test_a_preview_that_is_cancelled_gives_everything_back(video, alice, workspace):
    before = ledger.balance(workspace)
    preview = order(video, alice, frames=RANGE)
    attempt, _request = sent(preview)
    dispatch.apply_status(attempt, running(attempt, frames=30, sequence=1))
    lifecycle.cancel(preview, actor=alice)
    assert ledger.balance(workspace) == before
    assert quote(video, OPTIONS).preview_credits == 0
    tasks.keep_partial(restoration_id=str(preview.pk))
    preview.refresh_from_db()
    assert (preview.has_partial, preview.num_segment_objects) == (False, 0)


def test_who_orders_the_whole_does_not_pay_for_a_preview_that_is_not_there_yet(video, alice, workspace):
    before = ledger.balance(workspace)
    preview = order(video, alice, frames=RANGE)
    whole = order(video, alice)
    preview.refresh_from_db()
    assert (preview.status, whole.price_credits) == (Status.CANCELLED, WHOLE)
    assert ledger.balance(workspace) == before - WHOLE


def test_nobody_pays_more_than_the_page_said(preview, video, alice, alice_client, workspace):
    shown = {"preview_credits": PREVIEW}
    lifecycle.expire(finish(order(video, alice)))
    before = ledger.balance(workspace)
    answer = post(alice_client, "video-restore", video, **shown)
    assert answer.status_code == 422
    assert "This price has changed" in answer.content.decode()
    assert f"Restore for {WHOLE} credits" in answer.content.decode()
    assert ledger.balance(workspace) == before


def test_a_whole_that_its_previews_have_paid_costs_nothing(workspace, alice):
    video = VideoFactory(workspace=workspace, num_frames=76)
    finish(order(video, alice, frames=(0, 75)))
    finish(order(video, alice, frames=(1, 76)))
    before = ledger.balance(workspace)
    whole = finish(order(video, alice))
    assert (whole.price_credits, whole.refunded_credits) == (0, 0)
    assert ledger.balance(workspace) == before


@pytest.mark.django_db(transaction=True)
def test_of_eight_orders_at_once_one_is_lowered(alice, workspace):
    """Of two copies of one file, with a preview that ends meanwhile: the books are right however it comes out."""
    copies = [
        VideoFactory(workspace=workspace, num_frames=300, duration_seconds=12.0, sha256="a" * 64)
        for _ in range(2)
    ]
    before = ledger.balance(workspace)
    done = finish(order(copies[0], alice, frames=RANGE))
    late, _request = sent(coming := order(copies[1], alice, frames=(200, 275)))
    deliver(late, num_frames=75)
    start, outcomes = threading.Barrier(9), []

    def at_once(work):
        try:
            start.wait()
            with scope.inside(workspace):
                outcomes.append(work())
        except submission.AlreadyRestored as exc:
            outcomes.append(exc.restoration.pk)
        finally:
            connections.close_all()

    works = [lambda number=number: order(copies[number % 2], alice).pk for number in range(8)]
    works.append(lambda: dispatch.apply_status(late, JobStatus(state=JobState.COMPLETED)))
    threads = [threading.Thread(target=at_once, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Restoration.objects.get(range_start=None)
    assert set(outcomes) == {whole.pk, None}
    coming.refresh_from_db()
    assert done.price_credits + whole.price_credits == (WHOLE - PREVIEW if coming.credited_to else WHOLE)
    assert before - ledger.balance(workspace) == WHOLE
    assert set(whole.previews.all()) == ({done, coming} if coming.credited_to else {done})


@pytest.mark.django_db(transaction=True)
def test_a_preview_that_is_lost_while_its_order_is_cancelled_is_paid_back(video, alice, workspace):
    before = ledger.balance(workspace)
    preview = finish(order(video, alice, frames=RANGE))
    whole = order(video, alice)
    is_lost, meets = threading.Event(), threading.Event()

    def lose():
        try:
            with scope.inside(workspace), transaction.atomic():
                lifecycle.lose(preview)
                is_lost.set()
                # On SQLite the cancel cannot begin before this ends.
                assert connection.vendor == "sqlite" or meets.wait(60)
        finally:
            connections.close_all()

    def note_meeting(execute, sql, *arguments):
        if '"credited_to_id" = ' in sql and (sql.startswith("UPDATE") or "FOR UPDATE" in sql):
            meets.set()
        return execute(sql, *arguments)

    losing = threading.Thread(target=lose)
    losing.start()
    assert is_lost.wait(60)
    with connection.execute_wrapper(note_meeting):
        lifecycle.cancel(whole, actor=alice)
    losing.join()
    preview.refresh_from_db()
    assert (preview.status, preview.credited_to) == (Status.LOST, None)
    assert ledger.balance(workspace) == before


# --- What the whole goes on after -----------------------------------------------------------------------------


def with_segments(preview):
    """Puts two segments of a preview into storage, as its worker did."""
    entries = []
    for index, (start, end) in enumerate([(53, 93), (93, 125)], start=1):
        saved = objects.save(segments.key_of(preview, index), io.BytesIO(b"%d" % index))
        entries.append(
            JournalEntry(index=index, start=start, end=end, bytes=saved.size_bytes, sha256=saved.sha256)
        )
    journal = Journal(fingerprint="0" * 64, segments=tuple(entries))
    objects.save(
        f"{preview.workspace_id}/segments/{preview.pk}/journal.json",
        io.BytesIO(json.dumps(journal.to_json()).encode()),
    )
    return journal


def test_the_whole_goes_on_after_the_previews_segments(preview, video, alice):
    journal = with_segments(preview)
    retention.purge()
    whole = order(video, alice)
    attempt, request = sent(whole)
    assert (request.range, request.pins, request.seed) == (None, (RANGE,), preview.seed)
    assert segments.journal_of(whole) == journal
    assert [objects.read_bytes(segments.key_of(whole, index)) for index in (1, 2)] == [b"1", b"2"]
    # What a worker has written since is not touched by the next attempt.
    newer = Journal(fingerprint="1" * 64, segments=())
    key = f"{whole.workspace_id}/segments/{whole.pk}/journal.json"
    objects.save(key, io.BytesIO(json.dumps(newer.to_json()).encode()))
    dispatch.apply_status(attempt, JobStatus(state=JobState.FAILED, error="worker_lost: gone"))
    whole.refresh_from_db()
    _again, repeated = sent(whole)
    assert (segments.journal_of(whole), repeated.pins) == (newer, (RANGE,))


def test_segments_of_a_preview_stay_as_long_as_the_preview(preview, video, alice):
    with_segments(preview)
    retention.purge()
    assert segments.journal_of(preview) is not None
    lifecycle.expire(preview)
    retention.purge()
    assert segments.journal_of(preview) is None
    whole = order(video, alice)
    _attempt, request = sent(whole)
    assert (whole.price_credits, request.pins) == (WHOLE - PREVIEW, (RANGE,))
    assert segments.journal_of(whole) is None, "paid frames that are gone are made again"


# --- Its page -------------------------------------------------------------------------------------------------


def test_from_its_preview_the_whole_is_ordered_with_one_button(preview, video, alice_client, workspace):
    page = alice_client.get(preview.get_absolute_url()).content.decode()
    assert f"Restore the whole video for {WHOLE - PREVIEW} credits" in page
    assert 'data-source-start="2.12"' in page
    assert preview.download_name == "holiday_720p_seed42_preview_at_0m02s.mp4"
    whole = alice_client.get(preview.get_absolute_url()).context["whole"]
    settings = alice_client.get(preview.get_absolute_url()).context["whole_settings"]
    before = ledger.balance(workspace)
    hidden = settings | {"offer_id": whole.offer_id, "preview_credits": whole.preview_credits}
    answer = post(alice_client, "video-restore", video, **hidden)
    ordered = Restoration.objects.get(range_start=None)
    assert answer.headers["location"] == ordered.get_absolute_url()
    assert before - ledger.balance(workspace) == WHOLE - PREVIEW
    assert "(6 taken off for a preview)" in alice_client.get(ordered.get_absolute_url()).content.decode()
    page = alice_client.get(preview.get_absolute_url()).content.decode()
    assert ordered.get_absolute_url() in page
    assert "Restore the whole video" not in page
