"""A person's own data: everything that is theirs, nothing that is not, for them alone, and not for ever."""

import io
import json
import zipfile
from datetime import timedelta

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import audit, workspaces
from accounts.models import DataExport
from restorations import data_export, objects, retention
from restorations.models import Restoration
from restorations.tasks import build_export
from tests.factories import PASSWORD, RestorationFactory, VideoFactory

pytestmark = pytest.mark.django_db


def archive_of(person):
    export = data_export.ask(person)
    build_export(export_id=str(export.pk))
    export.refresh_from_db()
    return zipfile.ZipFile(io.BytesIO(objects.read_bytes(export.storage_key)))


def content(archive, name):
    return json.loads(archive.read(name))


def test_an_owner_gets_everything_of_the_workspace(alice, bob, workspace):
    video = VideoFactory(workspace=workspace, created_by=bob, file_name="müller's.mp4")
    done = RestorationFactory(
        video=video,
        created_by=bob,
        status=Restoration.Status.SUCCEEDED,
        result_key=f"{workspace.pk}/results/1.mp4",
    )
    archive = archive_of(alice)
    folder = f"workspaces/{workspace.slug}"
    assert content(archive, "profile.json")["email"] == "alice@example.com"
    assert content(archive, "memberships.json")[0]["role"] == "owner"
    assert [row["file_name"] for row in content(archive, f"{folder}/videos.json")] == ["müller's.mp4"]
    [row] = content(archive, f"{folder}/restorations.json")
    assert (row["id"], row["page"]) == (str(done.pk), f"http://127.0.0.1:8000{done.get_absolute_url()}")
    assert row["media"].startswith("http://127.0.0.1:8000/objects/")
    assert sum(entry["credits"] for entry in content(archive, f"{folder}/ledger.json")) == 300
    assert any(entry["deed"] == "workspace_created" for entry in content(archive, f"{folder}/audit.json"))
    assert "alice@example.com" in archive.read("README.txt").decode()


def test_a_member_gets_only_what_they_did_themselves(alice, bob, workspace):
    VideoFactory(workspace=workspace, created_by=alice, file_name="hers.mp4")
    VideoFactory(workspace=workspace, created_by=bob, file_name="his.mp4")
    audit.record(workspace=workspace, deed=audit.Deed.ORDERED, subject="his.mp4", actor=bob)
    archive = archive_of(bob)
    folder = f"workspaces/{workspace.slug}"
    assert [row["file_name"] for row in content(archive, f"{folder}/videos.json")] == ["his.mp4"]
    assert content(archive, f"{folder}/ledger.json") == []
    assert [entry["subject"] for entry in content(archive, f"{folder}/audit.json")] == ["his.mp4"]
    assert "hers.mp4" not in str([archive.read(name) for name in archive.namelist()])


def test_it_is_no_way_round_a_second_factor(alice, bob, workspace):
    VideoFactory(workspace=workspace, created_by=bob, file_name="his.mp4")
    workspaces.change(workspace, requires_second_factor=True)
    folder = f"workspaces/{workspace.slug}/"
    for person in (alice, bob):
        assert not [name for name in archive_of(person).namelist() if name.startswith(folder)]
    TOTP.activate(bob, generate_totp_secret())
    DataExport.objects.all().delete()
    [video] = content(archive_of(bob), f"{folder}videos.json")
    assert video["file_name"] == "his.mp4"


def test_no_secret_leaves(alice, workspace):
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    video = VideoFactory(workspace=workspace)
    text = str([archive.read(name) for archive in [archive_of(alice)] for name in archive.namelist()])
    for hidden in (secret, alice.password, video.storage_key):
        assert hidden not in text.replace(objects.address_to_read(video.storage_key), "")


def test_it_is_collected_once_and_mailed_once(alice, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as rings:
        first, second = data_export.ask(alice), data_export.ask(alice)
    assert first == second
    assert len(rings) == 1
    for _ in range(2):
        build_export(export_id=str(first.pk))
    assert [m.subject for m in mail.outbox] == ["Your data is ready"]
    assert "/settings/data/" in mail.outbox[0].body


def sign_in(person):
    person.emailaddress_set.create(email=person.email, verified=True, primary=True)
    client = Client()
    client.post(reverse("account_login"), {"login": person.email, "password": PASSWORD})
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    return client


def test_only_its_owner_can_fetch_it_and_not_for_ever(alice, bob, charlie):
    client = sign_in(alice)
    client.post(reverse("data-export"))
    export = DataExport.objects.get(user=alice)
    path = reverse("data-export-download", args=[export.pk])
    assert client.get(path).status_code == 404, "not ready yet"
    build_export(export_id=str(export.pk))
    assert "/objects/" in client.get(path)["Location"]
    assert "Download" in client.get(reverse("account-data")).content.decode()
    for other in (bob, charlie):
        assert sign_in(other).get(path).status_code == 404
    assert Client().get(path)["Location"].startswith(reverse("account_login"))
    DataExport.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    key = DataExport.objects.get().storage_key
    assert data_export.keys_in_use([key, "x"]) == {key}
    retention.enforce()
    assert not objects.exists(key)
    assert client.get(path).status_code == 404


def test_it_asks_again_who_it_is_first(alice, signed_in):
    client = signed_in(alice)
    assert client.post(reverse("data-export"))["Location"].startswith(reverse("account_reauthenticate"))
    assert not DataExport.objects.exists()


def test_a_person_asks_three_times_a_day(alice):
    client = sign_in(alice)
    assert [client.post(reverse("data-export")).status_code for _ in range(4)] == [302, 302, 302, 429]
