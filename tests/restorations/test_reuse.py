"""The same video with the same settings is restored once; the result that is there costs nothing (U5)."""

import hashlib
import io
import threading
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.urls import reverse
from django.utils import timezone

from accounts import scope
from accounts.workspaces import personal_workspace
from billing import ledger
from restorations import dispatch, lifecycle, objects, reuse, submission, uploads
from restorations.models import Restoration, Video
from restorations.options import Options
from tests.factories import AttemptFactory, VideoFactory

pytestmark = pytest.mark.django_db
SHA = hashlib.sha256(b"film").hexdigest()


@pytest.fixture
def video(workspace):
    return VideoFactory(workspace=workspace, sha256=SHA)


def options(**more):
    return Options(**{"preset": "720p", "seed": 1, **more})


def finished(video, alice, **more):
    restoration = submission.submit(video=video, user=alice, options=options(**more))
    now = timezone.now()
    Restoration.objects.filter(pk=restoration.pk).update(
        status="succeeded", finished_at=now, expires_at=now + timedelta(days=1)
    )
    return restoration


def order(client, video, **more):
    sent = {"preset": "720p", "seed": 1, **more}
    return client.post(reverse("video-restore", args=[video.workspace.slug, video.pk]), sent, follow=True)


def test_a_result_that_is_there_is_opened_and_costs_nothing(video, alice, alice_client, workspace):
    first = finished(video, alice)
    before = ledger.balance(workspace)
    page = order(alice_client, video)
    assert page.redirect_chain[-1][0] == first.get_absolute_url()
    assert "You already have this result. Nothing was charged." in page.content.decode()
    assert ledger.balance(workspace) == before
    assert Restoration.objects.count() == 1


def test_a_finished_result_comes_before_one_that_is_being_made(video, alice):
    submission.submit(video=video, user=alice, options=options(seed=5))
    there = finished(video, alice, seed=6)
    submission.submit(video=video, user=alice, options=options(seed=7))
    assert reuse.find(video, Options(preset="720p")) == there


def test_the_page_says_so_before_the_button(video, alice, alice_client):
    first = finished(video, alice)
    page = alice_client.get(f"{video.get_absolute_url()}?preset=720p&seed=1").content.decode()
    assert "You already have this result" in page
    assert first.get_absolute_url() in page
    assert "Restore for" not in page
    assert (
        "Restore for" in alice_client.get(f"{video.get_absolute_url()}?preset=720p&seed=2").content.decode()
    )


def test_the_same_file_uploaded_again_has_the_result_too(video, alice, workspace):
    first = finished(video, alice)
    again = VideoFactory(workspace=workspace, sha256=SHA)
    with pytest.raises(submission.AlreadyRestored) as caught:
        submission.submit(video=again, user=alice, options=options())
    assert caught.value.restoration == first


def test_without_a_seed_any_seed_will_do(video, alice):
    first = finished(video, alice, seed=77)
    assert reuse.find(video, options(seed=None)) == first


@pytest.mark.parametrize(
    "other",
    [
        {"preset": "1080p"}, {"seed": 2}, {"model": "seedvr2-3b"}, {"strength": 50}, {"color_fix": "lab"},
        {"output": "prores"},
    ],
)  # fmt: skip
def test_another_setting_is_another_order(video, alice, other):
    finished(video, alice)
    assert reuse.find(video, options(**other)) is None


def test_another_revision_of_the_engine_is_another_order(video, alice, settings):
    finished(video, alice)
    settings.ENGINE_REVISION = "2"
    assert reuse.find(video, options()) is None


def test_another_workspace_is_never_looked_into(video, alice, charlie):
    finished(video, alice)
    theirs = VideoFactory(workspace=personal_workspace(charlie), sha256=SHA)
    assert submission.submit(video=theirs, user=charlie, options=options()).video == theirs


def test_files_whose_checksum_nobody_knows_yet_are_not_the_same(workspace, alice):
    first, second = VideoFactory(workspace=workspace), VideoFactory(workspace=workspace)
    finished(first, alice)
    assert reuse.find(second, options()) is None


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_what_is_no_result_is_restored_anew(video, alice, status):
    first = finished(video, alice)
    Restoration.objects.filter(pk=first.pk).update(status=status)
    assert submission.submit(video=video, user=alice, options=options()).pk != first.pk


def test_a_result_whose_time_is_over_is_restored_anew(video, alice):
    finished(video, alice)
    Restoration.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert reuse.find(video, options()) is None


# --- Two at once ----------------------------------------------------------------------------------------------


def test_a_second_order_joins_the_first_and_is_not_charged(video, alice, alice_client, workspace):
    first = submission.submit(video=video, user=alice, options=options())
    before = ledger.balance(workspace)
    page = order(alice_client, video)
    assert page.redirect_chain[-1][0] == first.get_absolute_url()
    assert "This is being restored already" in page.content.decode()
    assert ledger.balance(workspace) == before


def test_when_the_first_fails_everything_is_back_and_it_can_be_ordered_again(video, alice, workspace):
    before = ledger.balance(workspace)
    first = submission.submit(video=video, user=alice, options=options())
    with pytest.raises(submission.AlreadyRestored):
        submission.submit(video=video, user=alice, options=options())
    lifecycle.fail(first, dispatch.ErrorCode.ENGINE_FAILED)
    assert ledger.balance(workspace) == before
    second = submission.submit(video=video, user=alice, options=options())
    assert second.pk != first.pk
    assert ledger.balance(workspace) == before - second.price_credits


@pytest.mark.django_db(transaction=True)
def test_of_eight_equal_orders_at_once_one_runs_and_is_charged(workspace, alice):
    """Four tabs on two copies of one file: the row of the workspace is what they meet at."""
    copies = [VideoFactory(workspace=workspace, sha256=SHA) for _ in range(2)]
    before, outcomes, start = ledger.balance(workspace), [], threading.Barrier(8)

    def order_one(number):
        try:
            start.wait()
            with scope.inside(workspace):
                outcomes.append(submission.submit(video=copies[number % 2], user=alice, options=options()).pk)
        except submission.AlreadyRestored as exc:
            outcomes.append(exc.restoration.pk)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=order_one, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    only = Restoration.objects.get()
    assert outcomes == [only.pk] * 8, connection.vendor
    assert ledger.balance(workspace) == before - only.price_credits


# --- Checksums ------------------------------------------------------------------------------------------------


def test_a_source_gets_its_checksum_once(workspace, alice, http, django_capture_on_commit_callbacks):
    objects.save("w1/sources/film.mp4", io.BytesIO(b"film"))
    video = uploads.make_video(
        workspace=workspace, user=alice, file_name="film.mp4", key="w1/sources/film.mp4", size_bytes=4
    )
    assert video.hash_wanted_at is not None
    uploads.hash_source(video.pk)
    video.refresh_from_db()
    assert (video.sha256, video.hash_wanted_at) == (SHA, None)
    objects.save("w1/sources/film.mp4", io.BytesIO(b"other"))
    uploads.hash_source(video.pk)
    assert Video.objects.get().sha256 == SHA


def test_a_source_that_passed_the_site_has_it_at_once(workspace, alice):
    video = uploads.receive(
        workspace=workspace, user=alice, file_name="film.mp4", size_bytes=4, content=io.BytesIO(b"film")
    )
    assert (video.sha256, video.hash_wanted_at) == (SHA, None)


def test_the_worker_is_told_the_checksum(video):
    attempt = AttemptFactory(restoration__video=video)
    assert dispatch._request(attempt).source_sha256 == SHA
    Video.objects.update(sha256="")
    attempt.restoration.video.refresh_from_db()
    assert dispatch._request(attempt).source_sha256 is None


def test_a_result_that_may_be_too_large_for_one_put_goes_in_parts(video):
    attempt = AttemptFactory(restoration__video=video)
    assert dispatch._request(attempt).result_parts is None
    attempt.restoration.num_frames = 24 * 3600
    attempt.restoration.output = "prores"
    parts = dispatch._request(attempt).result_parts
    assert parts is not None
    assert parts.part_bytes * len(parts.put) > objects.MAX_PUT_BYTES
    assert len(parts.put) <= 201
