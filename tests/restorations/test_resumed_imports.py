"""Imports that break off: the next try asks for the rest only, of the same file, under the same rules (U6)."""

from __future__ import annotations

import struct
import threading
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from restorations import objects, retention, uploads
from restorations.links import imports
from restorations.links.problems import Problem
from restorations.models import LinkImport, Video
from seedvr_site.object_storage import s3_backend
from tests import samples
from tests.services.films import films
from tests.services.seaweedfs import BUCKET

pytestmark = pytest.mark.django_db
#: S3 takes no smaller parts.
PART = 5 * 2**20
#: A real video of three parts and a half: MP4 readers skip boxes that are `free`.
CLIP = samples.path("pal_25.mp4").read_bytes()
FILM = CLIP + struct.pack(">I4s", 3 * PART, b"free") + bytes(3 * PART - 8)
OTHER = FILM[:-100] + b"x" * 100


@pytest.fixture
def site(tmp_path, settings, monkeypatch):
    """A site with films on this machine, which may be imported from."""
    with films(tmp_path) as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.authority))
        settings.IMPORT_ADDRESS_POLICY = "restorations.links.policy.loopback_too"
        settings.UPLOAD_PART_BYTES = PART
        yield running


@pytest.fixture
def begun(site, workspace, alice, http):
    """An import whose line broke in its third part, on each of the stores."""
    begun = imports.begin(workspace=workspace, user=alice, link=site.publish("film.mp4", FILM))
    site.breaks_after = 2 * PART + PART // 2
    imports.run(begun.pk)
    site.go_on()
    begun.refresh_from_db()
    assert (begun.status, begun.link) == ("waiting", f"{site.url}/film.mp4?signature=secret")
    assert [part.size for part in parts_of(begun)] == [PART, PART]
    return begun


def parts_of(begun):
    return objects.list_parts(begun.storage_key, begun.storage_upload_id)


def is_forgotten(begun):
    return begun.storage_upload_id not in {
        upload.upload_id for upload in objects.multiparts()
    } and not objects.exists(begun.storage_key)


def run(begun):
    imports.run(begun.pk)
    begun.refresh_from_db()
    return begun.status


def test_the_next_try_asks_for_the_rest_only(site, begun):
    assert run(begun) == "done"
    first, second = site.calls
    assert (first.range, second.range) == ("", f"bytes={2 * PART}-")
    assert second.if_range.startswith('"')
    assert second.num_bytes_sent == len(FILM) - 2 * PART
    video = Video.objects.get()
    assert (video.file_name, video.size_bytes) == ("film.mp4", len(FILM))
    assert objects.read_bytes(video.storage_key) == FILM
    # Nobody has seen all bytes, so the checksum is computed afterwards.
    assert video.sha256 == ""
    uploads.hash_source(video.pk)
    video.refresh_from_db()
    assert video.sha256 == objects.sha256(video.storage_key)


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_file_that_changed_comes_whole(site, begun):
    upload_before = begun.storage_upload_id
    site.publish("film.mp4", OTHER)
    assert run(begun) == "done"
    assert site.calls[1].range, "it was asked for the rest, and sent the other file"
    assert objects.read_bytes(begun.storage_key) == OTHER
    assert begun.video.sha256 == objects.sha256(begun.storage_key)
    assert upload_before not in {upload.upload_id for upload in objects.multiparts()}


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_site_without_ranges_sends_the_file_anew(site, begun):
    site.knows_ranges = False
    assert run(begun) == "done"
    assert site.calls[1].num_bytes_sent == len(FILM)
    assert objects.read_bytes(begun.storage_key) == FILM


def test_a_link_that_expired_meanwhile_says_so_and_leaves_nothing(site, begun, alice_client):
    site.has_expired = True
    assert run(begun) == "failed"
    assert (begun.problem, begun.link) == ("expired", "")
    assert is_forgotten(begun)
    page = alice_client.get(begun.workspace.get_absolute_url()).content.decode()
    assert str(Problem.EXPIRED.label) in page


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_the_rest_comes_from_a_public_site_only(site, begun, settings):
    """DNS rebinding between two tries."""
    settings.IMPORT_ADDRESS_POLICY = "restorations.links.policy.public_only"
    assert run(begun) == "failed"
    assert begun.problem == "private"
    assert len(site.calls) == 1
    assert is_forgotten(begun)


def test_an_import_cancelled_between_two_tries_leaves_nothing(begun, alice_client):
    alice_client.post(reverse("import-cancel", args=[begun.workspace.slug, begun.pk]))
    begun.refresh_from_db()
    assert begun.status == "cancelled"
    assert is_forgotten(begun)


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_bad_line_that_gets_further_each_time_gets_there(site, begun):
    """The line breaks more often than tries are counted."""
    site.publish("film.mp4", FILM + bytes(2 * PART))
    site.breaks_after = PART + 1000
    statuses = [run(begun) for _ in range(6)]
    assert statuses == ["waiting"] * 5 + ["done"]
    # The first two count: the file had changed, so the second began anew. The last one counts, and came to its end.
    assert (begun.num_tries, begun.num_excused) == (7, 4)
    assert objects.size(begun.storage_key) == len(FILM) + 2 * PART


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_line_that_gets_no_further_is_given_up(site, begun):
    site.breaks_after = 1000
    assert [run(begun) for _ in range(2)] == ["waiting", "failed"]
    assert begun.problem == "broken_off"
    assert is_forgotten(begun)


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_worker_that_is_asked_to_end_leaves_its_import_to_others(site, begun, monkeypatch):
    stopping = threading.Event()
    monkeypatch.setattr(imports, "_stopping", stopping)
    claim = imports._claim

    def stop_after(import_id):
        claimed = claim(import_id)
        imports.stop()
        return claimed

    with monkeypatch.context() as patch:
        patch.setattr(imports, "_claim", stop_after)
        assert run(begun) == "waiting"
    assert (begun.num_tries, begun.num_excused) == (2, 1)
    assert run(begun) == "waiting"
    assert begun.num_tries == 2, "it takes no more"
    stopping.clear()
    assert run(begun) == "done"
    assert site.calls[-1].range == f"bytes={2 * PART}-"


@pytest.mark.parametrize("moment", ["before the parts are joined", "before the row says so"])
def test_a_worker_killed_at_the_very_end_fetches_nothing_again(site, begun, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def die(*_arguments, **_values):
        raise Killed

    name = "_finish" if moment == "before the parts are joined" else "_mark_done"
    with monkeypatch.context() as patch:
        patch.setattr(imports, name, die)
        with pytest.raises(Killed):
            imports.run(begun.pk)
    LinkImport.objects.update(status="waiting")
    num_calls = len(site.calls)
    assert run(begun) == "done"
    assert len(site.calls) == num_calls
    assert objects.read_bytes(begun.storage_key) == FILM


def test_parts_that_the_storage_gave_up_come_anew(site, begun):
    """A bucket's rule aborts uploads that nobody finishes."""
    objects.abort_multipart(begun.storage_key, begun.storage_upload_id)
    assert run(begun) == "done"
    assert site.calls[1].range == ""
    assert objects.read_bytes(begun.storage_key) == FILM


@pytest.mark.services
@pytest.mark.parametrize("http", ["s3"], indirect=True)
def test_a_storage_that_is_away_costs_time_and_no_try(site, begun, bucket_address, settings):
    there = settings.STORAGES
    settings.STORAGES = {
        **there,
        "default": s3_backend(
            bucket=BUCKET, endpoint="http://127.0.0.1:1", region="us-east-1", access_key="a", secret_key="b"
        ),
    }
    assert run(begun) == "waiting"
    assert begun.num_excused == 1
    settings.STORAGES = there
    assert run(begun) == "done"
    assert site.calls[1].range == f"bytes={2 * PART}-"


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_workspace_that_is_closed_imports_nothing_more(site, begun):
    retention.empty_workspace(workspace=begun.workspace)
    assert run(begun) == "cancelled"
    assert len(site.calls) == 1


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_a_worker_that_comes_back_when_another_has_finished_takes_nothing_away(site, begun, monkeypatch):
    """It was silent for longer than `LOST`, such as in front of a storage that did not answer."""
    fetch_file = imports._fetch

    def overtaken(claimed):
        monkeypatch.setattr(imports, "_fetch", fetch_file)
        LinkImport.objects.update(touched_at=timezone.now() - imports.LOST - timedelta(seconds=1))
        imports.repair(timedelta(0))
        assert run(begun) == "done"
        fetch_file(claimed)

    monkeypatch.setattr(imports, "_fetch", overtaken)
    imports.run(begun.pk)
    assert objects.read_bytes(Video.objects.get().storage_key) == FILM
