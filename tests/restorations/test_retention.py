"""Files go on time, or when their owner says so; rows stay."""

import io
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from restorations import objects, retention, uploads
from restorations.models import Restoration, Upload, Video
from tests.factories import AttemptFactory, RestorationFactory, VideoFactory
from tests.services.smtp import mailbox

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


def test_a_source_that_is_ordered_at_the_last_moment_stays(done, monkeypatch):
    Video.objects.update(created_at=timezone.now() - timedelta(days=8))
    Restoration.objects.update(finished_at=timezone.now() - timedelta(days=8))
    find_due = retention._videos_due

    def ordered_meanwhile():
        due = find_due()
        RestorationFactory(video=done.video)
        return due

    monkeypatch.setattr(retention, "_videos_due", ordered_meanwhile)
    retention.enforce()
    assert exists(done.video.storage_key)
    assert Video.objects.get().deleted_at is None


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
    Upload.objects.update(touched_at=timezone.now() - timedelta(days=3))
    retention.enforce()
    assert not Upload.objects.exists()
    assert upload.storage_upload_id not in {begun.upload_id for begun in objects.multiparts()}


def test_files_already_gone_are_no_error(workspace):
    VideoFactory(workspace=workspace, deleted_at=timezone.now())
    retention.purge()
    assert Video.objects.get().storage_key == ""


def test_an_upload_that_goes_on_is_kept_and_an_idle_one_follows_its_workspaces_time(alice, workspace):
    uploads.begin(workspace=workspace, user=alice, file_name="a.mp4", size_bytes=5)
    workspace.retention_hours = 2
    workspace.save()
    upload = Upload.objects.get()
    Upload.objects.update(touched_at=timezone.now() - timedelta(hours=3))
    uploads.address_of_part(upload, 1)
    retention.enforce()
    assert Upload.objects.exists(), "somebody has just asked for a part"
    Upload.objects.update(touched_at=timezone.now() - timedelta(hours=3))
    retention.enforce()
    assert not Upload.objects.exists()


def test_admins_choose_how_long_files_are_kept_and_what_is_there_follows(done, alice_client, workspace):
    Restoration.objects.update(finished_at=timezone.now() - timedelta(hours=30))
    page = reverse("workspace-settings", args=[workspace.slug])
    assert "7 days" in alice_client.get(page).content.decode()
    alice_client.post(page, {"name": workspace.name, "retention_hours": "24"})
    workspace.refresh_from_db()
    assert workspace.retention_hours == 24
    retention.enforce()
    assert Restoration.objects.get().status == "expired"
    alice_client.post(page, {"name": workspace.name, "retention_hours": "1000"})
    workspace.refresh_from_db()
    assert workspace.retention_hours == 24, "from an hour to 30 days, nothing else"


def test_a_finished_part_follows_its_workspaces_new_time(done, alice_client, workspace):
    objects.save("a part", io.BytesIO(b"bytes"))
    ended = timezone.now() - timedelta(hours=30)
    part = {"status": "cancelled", "partial_key": "a part", "result_key": ""}
    Restoration.objects.update(**part, finished_at=ended)
    page = reverse("workspace-settings", args=[workspace.slug])
    alice_client.post(page, {"name": workspace.name, "retention_hours": "24"})
    retention.enforce()
    assert not Restoration.objects.get().has_partial
    assert not exists("a part")


def test_after_a_longer_time_people_are_warned_again(done, alice, alice_client, workspace, mailoutbox):
    soon = timezone.now() + timedelta(hours=12)
    Restoration.objects.update(created_by=alice, expires_at=soon, finished_at=soon - timedelta(days=7))
    retention.enforce()
    page = reverse("workspace-settings", args=[workspace.slug])
    alice_client.post(page, {"name": workspace.name, "retention_hours": str(30 * 24)})
    retention.enforce()
    assert len(mailoutbox) == 1
    Restoration.objects.update(expires_at=soon)
    retention.enforce()
    assert len(mailoutbox) == 2


def test_receipts_say_what_is_gone_and_are_mailed_once(done, alice, alice_client, workspace, mailoutbox):
    Video.objects.update(created_by=alice)
    Restoration.objects.update(created_by=alice)
    retention.delete_video(done.video, actor=alice)
    receipt = reverse("deletion-receipt", args=[workspace.slug, done.video.pk])
    assert "within 15 minutes" in alice_client.get(receipt).content.decode()
    Restoration.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    retention.enforce()
    retention.enforce()
    page = alice_client.get(receipt).content.decode()
    assert "within 15 minutes" not in page
    assert f"by {alice.email}" in page
    assert "because its time was up" in page
    assert "holiday.mp4" in alice_client.get(reverse("deletion-list", args=[workspace.slug])).content.decode()
    (mail,) = mailoutbox
    assert mail.to == [alice.email]
    assert receipt in mail.body


def test_a_receipt_that_could_not_be_mailed_is_mailed_later(done, alice, settings, mailoutbox):
    Video.objects.update(created_by=alice)
    retention.delete_video(done.video, actor=alice)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    with pytest.raises(OSError):
        retention.enforce()
    assert Video.objects.get().purged_at is not None
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    retention.enforce()
    assert len(mailoutbox) == 1


def test_a_mailbox_that_is_gone_keeps_nobody_elses_mail(workspace, alice, bob, settings):
    rows = {"restoration__video__workspace": workspace, "restoration__status": "succeeded"}
    for hours, person in enumerate((alice, bob, alice), 1):
        soon = timezone.now() + timedelta(hours=hours)
        AttemptFactory(**rows, restoration__created_by=person, restoration__expires_at=soon)
        deleted = {"created_by": person, "deleted_at": timezone.now()}
        VideoFactory(workspace=workspace, **deleted)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    with mailbox() as box:
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", box.port
        box.unknown = {alice.email}
        retention.enforce()
    assert sorted(mail["To"] for mail in box.mails) == [bob.email, bob.email]
    assert sorted(mail["Subject"].split(":")[0] for mail in box.mails) == [
        "Deleted soon",
        "Your files are deleted",
    ]


def test_people_who_want_no_mail_about_deletions_get_none(done, alice, mailoutbox):
    Video.objects.update(created_by=alice)
    type(alice).objects.update(mail_on_expiry=False)
    retention.delete_video(done.video, actor=alice)
    retention.enforce()
    assert mailoutbox == []
