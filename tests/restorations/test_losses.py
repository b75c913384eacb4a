"""Files that storage has lost: noted, confirmed, told to their owner with the credits back; never without need."""

import io
from datetime import timedelta

import pytest
from django.core import mail
from django.urls import reverse
from django.utils import timezone

from billing import ledger
from restorations import lifecycle, losses, notifications, objects, orphans, repair
from restorations.models import LostObject, Restoration
from tests.factories import RestorationFactory, VideoFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("http")]


@pytest.fixture(autouse=True)
def empty_store(http):
    objects.delete([item.key for item in objects.walk()])
    losses.leave_sign()


@pytest.fixture
def result(workspace, alice):
    """A finished restoration of 40 credits, of which 3 came back when it finished."""
    long_ago = timezone.now() - timedelta(days=1)
    restoration = RestorationFactory(
        video__workspace=workspace,
        created_by=alice,
        status="succeeded",
        price_credits=40,
        refunded_credits=3,
        result_key=f"{workspace.pk}/results/r/1.mp4",
        finished_at=long_ago,
        expires_at=long_ago + timedelta(days=7),
    )
    ledger.charge(workspace=workspace, credits=40, reference=restoration.reference, spender=alice)
    ledger.refund(workspace=workspace, credits=3, reference=restoration.reference)
    objects.save(restoration.video.storage_key, io.BytesIO(b"source"))
    objects.save(restoration.result_key, io.BytesIO(b"film"))
    return restoration


def half_a_minute_later():
    LostObject.objects.update(created_at=timezone.now() - losses.SECOND_LOOK - timedelta(seconds=1))
    losses.look_again()


def test_a_lost_result_is_told_and_paid_back_once(result, workspace, alice_client, operator, signed_in):
    before = ledger.balance(workspace)
    objects.delete([result.result_key])
    download = reverse("restoration-download", args=[workspace.slug, result.pk])
    assert alice_client.get(download).status_code == 410
    losses.look_again()
    assert ledger.balance(workspace) == before, "the first look may be wrong"
    half_a_minute_later()
    losses.look_again()
    orphans.sweep()
    half_a_minute_later()
    assert ledger.balance(workspace) == before + 37
    result.refresh_from_db()
    assert (result.status, result.refunded_credits, result.result_key) == ("lost", 40, "")

    page = alice_client.get(result.get_absolute_url()).content.decode()
    assert "We have lost this file" in page
    assert "40 credits were given back" in page
    assert "The file was lost" in page
    assert "37 credits given back" in page
    assert alice_client.get(download).status_code == 404
    for _twice in range(2):
        notifications.mail_finish(result.pk)
    assert [message.subject for message in mail.outbox] == [
        f"We have lost a file of yours: {result.video.title}"
    ]
    assert "40 credits are back" in mail.outbox[0].body

    operations = signed_in(operator)
    address = reverse("admin:restorations_lostobject_changelist")
    assert "37 credits were given back" in operations.get(address).content.decode()
    ids = [str(lost.pk) for lost in LostObject.objects.all()]
    operations.post(address, {"action": "mark_handled", "_selected_action": ids})
    assert [lost.handled_by for lost in LostObject.objects.all()] == [operator]


def test_a_file_that_is_there_after_all_costs_nothing(result, workspace):
    losses.note([result])
    half_a_minute_later()
    result.refresh_from_db()
    assert (result.status, LostObject.objects.count()) == ("succeeded", 0)


def test_a_storage_that_does_not_answer_has_lost_nothing(result, unreachable):
    losses.note([result])
    LostObject.objects.update(created_at=timezone.now() - timedelta(hours=1))
    with pytest.raises(objects.StorageUnavailable):
        losses.look_again()
    repair.repair()
    with pytest.raises(objects.StorageUnavailable):
        orphans.sweep()
    result.refresh_from_db()
    assert result.status == "succeeded"


def test_a_storage_that_is_another_one_has_lost_nothing(result):
    objects.delete([losses.SIGN, result.result_key, result.video.storage_key])
    for _twice in range(2):
        assert len(orphans.sweep().missing) >= 1
        half_a_minute_later()
    result.refresh_from_db()
    assert result.status == "succeeded"
    objects.save(result.result_key, io.BytesIO(b"mounted again"))
    objects.save(result.video.storage_key, io.BytesIO(b"mounted again"))
    orphans.sweep()
    assert (LostObject.objects.count(), losses.is_ours()) == (0, True)


def test_when_much_is_missing_an_operator_decides(result, operator, signed_in, monkeypatch):
    monkeypatch.setattr(losses, "MAX_AT_ONCE", 0)
    objects.delete([result.result_key])
    orphans.sweep()
    half_a_minute_later()
    lost = LostObject.objects.get()
    assert (lost.confirmed_at, Restoration.objects.get().status) == (None, "succeeded")
    form = {"action": "give_up", "_selected_action": [str(lost.pk)]}
    address = reverse("admin:restorations_lostobject_changelist")
    assert "37 credits go back" in signed_in(operator).get(address).content.decode()
    signed_in(operator).post(address, form)
    assert Restoration.objects.get().status == "lost"


def test_a_lost_source_is_told_where_it_would_be_restored(workspace, alice_client):
    video = VideoFactory(workspace=workspace, created_at=timezone.now() - timedelta(days=1))
    orphans.sweep()
    half_a_minute_later()
    assert "not in our storage any more. Please upload it again." in (
        alice_client.get(video.get_absolute_url()).content.decode()
    )
    assert orphans.sweep().missing == []


def test_a_preview_that_an_order_was_lowered_by_is_paid_back_with_that_order(result, workspace):
    preview = RestorationFactory(
        video=result.video,
        status="succeeded",
        price_credits=5,
        range_start=0,
        range_end=10,
        credited_to=result,
        result_key=f"{workspace.pk}/results/p/1.mp4",
        finished_at=result.finished_at,
    )
    ledger.charge(workspace=workspace, credits=5, reference=preview.reference)
    before = ledger.balance(workspace)
    assert lifecycle.lose(preview) == 0
    assert ledger.balance(workspace) == before
    assert lifecycle.lose(result) == 37
    assert lifecycle.lose(result) == 0
    assert ledger.balance(workspace) == before + 37 + 5
