"""Objects without rows go, rows without objects are told; nothing that somebody is at is touched. On both stores."""

import io
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import DataExport
from restorations import losses, objects, orphans, uploads
from restorations.models import LinkImport, LostObject, Restoration, Video
from restorations.stores.files import FileStore
from tests.factories import AttemptFactory, VideoFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("http", "empty_store")]


@pytest.fixture
def empty_store(http):
    """Nothing of other tests."""
    objects.delete([item.key for item in objects.walk()])
    for begun in objects.multiparts():
        objects.abort_multipart(begun.key, begun.upload_id)


@pytest.fixture
def a_week_later(monkeypatch):
    """Time goes by, for those who look at what was made before."""
    now = timezone.now
    monkeypatch.setattr(orphans.timezone, "now", lambda: now() + timedelta(days=7))


def stored(key, content=b"bytes"):
    objects.save(key, io.BytesIO(content))
    return key


def keys():
    """Everything but the sign by which sweeps know the storage again."""
    return {item.key for item in objects.walk()} - {losses.SIGN}


@pytest.fixture
def orphan(workspace):
    return stored(f"{workspace.pk}/sources/{uuid.uuid4()}.mp4")


@pytest.fixture
def in_use(workspace, alice):
    """Everything that a workspace may hold, each with its row."""
    video = VideoFactory(workspace=workspace)
    Video.objects.update(
        poster_key=f"{workspace.pk}/posters/a.jpg", proxy_key=f"{workspace.pk}/proxies/a.mp4"
    )
    running = AttemptFactory(
        restoration__video=video,
        restoration__status="running",
        result_key=f"{workspace.pk}/results/r/1.mp4",
        manifest_key=f"{workspace.pk}/results/r/1.json",
    )
    done = AttemptFactory(
        restoration__video=video,
        restoration__status="succeeded",
        restoration__result_key=f"{workspace.pk}/results/d/1.mp4",
        restoration__finished_at=timezone.now(),
        status="succeeded",
        result_key=f"{workspace.pk}/results/d/1.mp4",
        manifest_key=f"{workspace.pk}/results/d/1.json",
    )
    export = DataExport.objects.create(
        user=alice, storage_key=f"people/{alice.pk}/exports/{uuid.uuid4()}.zip"
    )
    named = [video.storage_key, f"{workspace.pk}/posters/a.jpg", f"{workspace.pk}/proxies/a.mp4"]
    named += [key for attempt in (running, done) for key in (attempt.result_key, attempt.manifest_key)]
    named += [export.storage_key, f"{workspace.pk}/segments/{running.restoration_id}/00000"]
    return {stored(key) for key in named}


def test_what_is_needed_stays_and_what_nobody_names_goes(in_use, orphan, a_week_later):
    assert keys() == {*in_use, orphan}
    report = orphans.sweep()
    assert [item.key for item in report.orphans] == [orphan]
    assert (report.num_removed, report.missing) == (1, [])
    assert keys() == in_use


def test_what_is_young_stays_for_its_row_may_come(orphan):
    assert orphans.sweep().orphans == []
    assert keys() == {orphan}


def test_without_removing_everything_is_only_told(orphan, a_week_later):
    assert len(orphans.sweep(removes=False).orphans) == 1
    assert keys() == {orphan}


def test_a_row_that_comes_while_the_rest_is_listed_saves_its_object(
    orphan, workspace, a_week_later, monkeypatch
):
    find = orphans.find

    def slow_find():
        report = find()
        VideoFactory(workspace=workspace, storage_key=orphan)
        return report

    monkeypatch.setattr(orphans, "find", slow_find)
    assert orphans.sweep().num_removed == 0
    assert keys() == {orphan}


@pytest.mark.parametrize("http", ["files"], indirect=True)
def test_many_orphans_cost_no_more_questions_than_one(
    orphan, workspace, a_week_later, django_assert_max_num_queries
):
    with CaptureQueriesContext(connection) as for_one:
        assert orphans.sweep().num_removed == 1
    for number in range(20):
        stored(f"{workspace.pk}/sources/{number}.mp4")
    with django_assert_max_num_queries(len(for_one)):
        assert orphans.sweep().num_removed == 20


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled", "expired"])
def test_the_result_of_an_attempt_that_lost_goes_soon(workspace, status, monkeypatch):
    attempt = AttemptFactory(
        restoration__video__workspace=workspace,
        restoration__status=status,
        status="cancelled",
        result_key=f"{workspace.pk}/results/r/2.mp4",
    )
    stored(attempt.restoration.video.storage_key)
    stored(attempt.result_key)
    now = timezone.now
    assert attempt.result_key in keys()
    orphans.sweep()
    assert attempt.result_key in keys(), "it may be on its way"
    monkeypatch.setattr(orphans.timezone, "now", lambda: now() + timedelta(minutes=30))
    orphans.sweep()
    assert attempt.result_key not in keys()
    assert attempt.restoration.video.storage_key in keys()


def test_files_of_others_in_the_same_bucket_are_left_alone(a_week_later):
    stored("backups/database.sql")
    report = orphans.sweep()
    assert (report.num_foreign, report.orphans) == (1, [])
    assert keys() == {"backups/database.sql"}


def test_a_wrong_database_removes_nothing(workspace, a_week_later, monkeypatch):
    monkeypatch.setattr(orphans, "MAX_ORPHANS", 2)
    for number in range(3):
        stored(f"{workspace.pk}/sources/{number}.mp4")
    with pytest.raises(orphans.TooMany):
        orphans.sweep()
    assert len(keys()) == 3
    assert orphans.sweep(is_forced=True).num_removed == 3


def test_an_upload_in_parts_that_nobody_knows_is_aborted_and_others_go_on(workspace, alice, a_week_later):
    mine, _new = uploads.begin(workspace=workspace, user=alice, file_name="a.mp4", size_bytes=5)
    forgotten = objects.create_multipart(f"{workspace.pk}/sources/lost.mp4", part_bytes=5)
    assert forgotten in {begun.upload_id for begun in objects.multiparts()}
    assert [begun.upload_id for begun in orphans.sweep().uploads] == [forgotten]
    assert {begun.upload_id for begun in objects.multiparts()} == {mine.storage_upload_id}


def test_what_has_come_of_an_import_is_kept_until_it_ends(workspace, a_week_later):
    key = f"{workspace.pk}/sources/a.mp4"
    begun = LinkImport.objects.create(
        workspace=workspace,
        link="https://films.example/",
        storage_key=key,
        storage_upload_id=objects.create_multipart(key, part_bytes=5),
    )
    assert orphans.sweep().uploads == []
    # Its worker was killed, and cannot clean up.
    LinkImport.objects.update(status=LinkImport.Status.CANCELLED)
    assert [upload.upload_id for upload in orphans.sweep().uploads] == [begun.storage_upload_id]
    assert list(objects.multiparts()) == []


def test_an_upload_in_parts_of_today_goes_on(workspace):
    upload_id = objects.create_multipart(f"{workspace.pk}/results/r/1.mp4", part_bytes=5)
    orphans.sweep()
    assert upload_id in {begun.upload_id for begun in objects.multiparts()}


def test_rows_that_have_lost_their_object_are_told(workspace, capsys):
    long_ago = timezone.now() - timedelta(days=1)
    video = VideoFactory(workspace=workspace, created_at=long_ago)
    kept = VideoFactory(workspace=workspace, created_at=long_ago)
    VideoFactory(workspace=workspace, created_at=long_ago, deleted_at=long_ago)
    VideoFactory(workspace=workspace)
    stored(kept.storage_key)
    lost = AttemptFactory(
        restoration__video=kept,
        restoration__status="succeeded",
        restoration__result_key=f"{workspace.pk}/results/d/1.mp4",
        restoration__finished_at=long_ago,
    ).restoration
    rows = {str(missing) for missing in orphans.sweep().missing}
    assert rows == {f"video {video.pk}", f"restoration {lost.pk}"}
    with pytest.raises(CommandError, match="2 rows have lost their object"):
        call_command("sweep_storage")
    assert video.storage_key in capsys.readouterr().out
    assert (Video.objects.count(), Restoration.objects.count()) == (4, 1)


def test_the_command_tells_and_removes(orphan, a_week_later, capsys):
    call_command("sweep_storage")
    assert orphan in capsys.readouterr().out
    assert keys() == {orphan}
    call_command("sweep_storage", "--remove")
    assert keys() == set()


def test_files_of_killed_processes_go(settings, a_week_later, tmp_path):
    settings.VAR_DIR = tmp_path
    left = tmp_path / "scratch" / "half"
    left.mkdir(parents=True)
    (left / "proxy.mp4").write_bytes(b"half a film")
    if isinstance(store := objects.store(), FileStore):
        store.staging_path().write_bytes(b"half a part")
    orphans.sweep()
    assert not left.exists()
    if isinstance(store, FileStore):
        assert list(store.staging_path().parent.glob("*")) == []


def test_files_that_go_while_they_are_listed_are_no_error(settings, workspace, tmp_path):
    """Parts that arrive, and copies that are done, at this very moment: a link that leads nowhere looks like them."""
    settings.VAR_DIR = tmp_path
    (tmp_path / "scratch").mkdir()
    gone = [tmp_path / "scratch" / "gone"]
    if isinstance(store := objects.store(), FileStore):
        gone.append(store.staging_path())
    for link in gone:
        link.symlink_to(tmp_path / "nowhere")
    VideoFactory(workspace=workspace, created_at=timezone.now() - timedelta(hours=2))
    try:
        assert len(orphans.sweep().missing) == 1
    finally:
        for link in gone:
            link.unlink()
    assert LostObject.objects.count() == 1


def test_the_scratch_space_of_an_idle_worker_stays(settings, a_week_later, tmp_path):
    settings.VAR_DIR = tmp_path
    code = (
        "import pathlib, sys, time; from gpu_worker.scratch import Scratch;"
        "scratch = Scratch(pathlib.Path(sys.argv[1])); print(scratch.directory, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "scratch")]
    with subprocess.Popen(command, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True) as worker:
        directory = Path(worker.stdout.readline().strip())
        orphans.sweep()
        assert directory.is_dir()
        worker.kill()
    orphans.sweep()
    assert not directory.exists()


def test_an_upload_that_the_bucket_gave_up_begins_anew(workspace, alice):
    first, _new = uploads.begin(workspace=workspace, user=alice, file_name="a.mp4", size_bytes=5)
    assert uploads.begin(workspace=workspace, user=alice, file_name="a.mp4", size_bytes=5) == (first, False)
    objects.abort_multipart(first.storage_key, first.storage_upload_id)
    again, is_new = uploads.begin(workspace=workspace, user=alice, file_name="a.mp4", size_bytes=5)
    assert is_new
    assert again.pk != first.pk
    assert objects.is_begun(again.storage_key, again.storage_upload_id)
