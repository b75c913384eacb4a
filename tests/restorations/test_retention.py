"""Files go on time, or when their owner says so; rows stay."""

import io
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from restorations import objects, retention, uploads
from restorations.models import Restoration, Upload, Video
from tests.factories import AttemptFactory, VideoFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def done(workspace):
    """A finished restoration with all its files in storage."""
    attempt = AttemptFactory(
        restoration__video__workspace=workspace,
        restoration__status="succeeded",
        restoration__finished_at=timezone.now(),
        restoration__expires_at=timezone.now() + timedelta(days=7),
        status="succeeded",
    )
    restoration = attempt.restoration
    restoration.result_key = attempt.result_key
    restoration.save()
    for key in (restoration.video.storage_key, attempt.result_key, attempt.manifest_key):
        objects.save(key, io.BytesIO(b"bytes"))
    return restoration


def exists(key):
    return objects.exists(key)


def test_a_result_goes_when_its_time_has_come(done):
    retention.enforce()
    assert exists(done.result_key)
    Restoration.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    retention.enforce()
    done_now = Restoration.objects.get()
    assert (done_now.status, done_now.result_key) == ("expired", "")
    assert not exists(done.result_key)
    assert not exists(done.attempts.get().manifest_key)
    assert [event.kind for event in done_now.events.all()] == ["expired"]


def test_a_source_goes_after_its_workspaces_time(done):
    Video.objects.update(created_at=timezone.now() - timedelta(days=8))
    retention.enforce()
    assert exists(done.video.storage_key), "the last restoration is younger"
    Restoration.objects.update(finished_at=timezone.now() - timedelta(days=8))
    retention.enforce()
    assert not exists(done.video.storage_key)
    assert Video.objects.get().deleted_at is not None


def test_a_source_in_use_stays(done):
    Video.objects.update(created_at=timezone.now() - timedelta(days=8))
    Restoration.objects.update(status="running", finished_at=None)
    retention.enforce()
    assert exists(done.video.storage_key)


def test_its_owner_deletes_a_result_now(done, alice_client, workspace):
    alice_client.post(reverse("restoration-delete", args=[workspace.slug, done.pk]))
    retention.purge()
    assert Restoration.objects.get().status == "expired"
    assert not exists(done.result_key)
    assert alice_client.get(done.get_absolute_url()).status_code == 200
    assert (
        alice_client.get(reverse("restoration-download", args=[workspace.slug, done.pk])).status_code == 404
    )


def test_its_owner_deletes_a_source_now_and_results_stay(done, alice_client, workspace):
    answer = alice_client.post(reverse("video-delete", args=[workspace.slug, done.video.pk]), follow=True)
    retention.purge()
    assert "holiday.mp4 is deleted" in answer.content.decode()
    assert not exists(done.video.storage_key)
    assert exists(done.result_key)
    assert alice_client.get(done.get_absolute_url()).status_code == 200


def test_a_source_that_is_being_restored_is_not_deleted(done, alice_client, workspace):
    Restoration.objects.update(status="running")
    answer = alice_client.post(reverse("video-delete", args=[workspace.slug, done.video.pk]), follow=True)
    assert "is being restored" in answer.content.decode()
    assert Video.objects.present().exists()


def test_unfinished_uploads_are_forgotten(alice, workspace):
    upload, _new = uploads.begin(workspace=workspace, user=alice, file_name="a.mp4", size_bytes=5)
    Upload.objects.update(created_at=timezone.now() - timedelta(days=3))
    retention.enforce()
    assert not Upload.objects.exists()
    assert upload.storage_upload_id not in {begun.upload_id for begun in objects.multiparts()}


def test_files_already_gone_are_no_error(workspace):
    VideoFactory(workspace=workspace, deleted_at=timezone.now())
    retention.purge()
    assert Video.objects.get().storage_key == ""
