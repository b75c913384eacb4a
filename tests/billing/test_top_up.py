"""Automatic top-up and the low-balance mail, against a Stripe that declines and asks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from accounts import workspaces
from accounts.models import AuditEntry, Workspace
from accounts.tasks import sweep_accounts
from billing import ledger, purchases, stripe_client, top_up
from billing.models import BillingAccount, Purchase
from tests.billing.delivery import deliver

pytestmark = pytest.mark.django_db

DECLINED_LATER = "4000000000000341"
TAKES_DAYS = "000123456789"
ASKS_LATER = "4000002500003155"


@pytest.fixture
def ready(twin, buy, workspace, pack):
    """Returns how Alice switches top-up on, with a card that she has paid with before."""

    def switch_on(card="4242424242424242", **values):
        buy(card)
        deliver(*twin.events)
        twin.events.clear()
        account = purchases.account_of(workspace)
        for name, value in {
            "top_up_enabled": True,
            "top_up_pack": pack,
            "top_up_threshold": 100,
            **values,
        }.items():
            setattr(account, name, value)
        purchases.save_top_up(account, ceiling_cents=values.get("top_up_ceiling_cents", 10_000))
        ledger.charge(workspace=workspace, credits=ledger.balance(workspace) - 60, reference="job")

    return switch_on


def top_ups(status=None):
    found = Purchase.objects.filter(is_top_up=True)
    return found.filter(status=status).count() if status else found.count()


def test_below_the_threshold_the_pack_is_bought_once(ready, twin, workspace, pack):
    ready()
    for _ in range(3):
        top_up.watch(workspace.pk)
    deliver(*twin.events, *twin.events)
    assert (top_ups("paid"), ledger.balance(workspace)) == (1, 60 + pack.total_credits)


def test_above_the_threshold_or_switched_off_nothing_is_bought(ready, workspace):
    ready(top_up_threshold=60)
    top_up.watch(workspace.pk)
    BillingAccount.objects.update(top_up_threshold=100, top_up_enabled=False)
    top_up.watch(workspace.pk)
    assert top_ups() == 0


def test_a_workspace_that_is_closed_or_deleted_buys_nothing(ready, workspace):
    ready()
    workspaces.schedule_deletion(workspace)
    top_up.watch(workspace.pk)
    assert top_ups() == 0
    Workspace.objects.filter(pk=workspace.pk).update(delete_after=timezone.now() - timedelta(seconds=1))
    sweep_accounts()
    top_up.watch(workspace.pk)
    assert top_ups() == 0


def test_a_workspace_that_is_opened_again_buys_again(ready, workspace):
    ready()
    workspaces.schedule_deletion(workspace)
    workspaces.undo_deletion(workspace)
    top_up.watch(workspace.pk)
    assert top_ups("paid") == 1


def test_the_monthly_ceiling_holds_until_the_next_month(ready, workspace):
    ready(top_up_ceiling_cents=2500)
    now = timezone.now().replace(day=15)
    top_up.watch(workspace.pk, now=now)
    ledger.charge(workspace=workspace, credits=ledger.balance(workspace), reference="job2")
    top_up.watch(workspace.pk, now=now)
    assert top_ups() == 1
    top_up.watch(workspace.pk, now=now + timedelta(days=20))
    assert top_ups() == 2


def test_three_declines_switch_it_off_with_one_mail(ready, twin, workspace):
    ready(DECLINED_LATER)
    now = timezone.now()
    for hours in (0, 1, 7, 8, 40, 41, 80):
        top_up.watch(workspace.pk, now=now + timedelta(hours=hours))
        deliver(*twin.events)
    assert top_ups("failed") == 3
    assert not BillingAccount.objects.get().top_up_enabled
    assert [m.subject for m in mail.outbox].count("Automatic top-up is off") == 1
    assert AuditEntry.objects.filter(deed="top_up_changed", details={"is_on": False}).count() == 1
    assert ledger.balance(workspace) == 60


def test_that_it_is_off_is_mailed_when_the_mail_server_is_back(ready, workspace, monkeypatch):
    ready(DECLINED_LATER)
    now = timezone.now()
    for hours in (0, 7):
        top_up.watch(workspace.pk, now=now + timedelta(hours=hours))
    with monkeypatch.context() as patched:
        patched.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
        for hours in (40, 80):
            with pytest.raises(OSError, match="away"):
                top_up.watch(workspace.pk, now=now + timedelta(hours=hours))
    mail.outbox.clear()
    for _ in range(2):
        top_up.watch(workspace.pk, now=now + timedelta(hours=120))
    assert [m.subject for m in mail.outbox] == ["Automatic top-up is off"]
    assert (top_ups(), BillingAccount.objects.get().top_up_enabled) == (3, False)
    assert AuditEntry.objects.filter(deed="top_up_changed", details={"is_on": False}).count() == 1


def refuse(*_args):
    raise OSError("the mail server is away")


@pytest.mark.parametrize("way", ["refund", "dispute"])
def test_money_that_went_back_is_not_taken_again_until_somebody_says_so(way, ready, twin, workspace):
    ready()
    top_up.watch(workspace.pk)
    # Somebody saved the settings in between.
    purchases.save_top_up(BillingAccount.objects.get(), ceiling_cents=10_000)
    getattr(twin, way)(Purchase.objects.get(is_top_up=True).stripe_payment_id)
    deliver(*twin.events)
    for _ in range(2):
        top_up.watch(workspace.pk)
    account = BillingAccount.objects.get()
    assert (top_ups(), ledger.balance(workspace), account.top_up_enabled) == (1, 60, False)
    assert [m.subject for m in mail.outbox].count("Automatic top-up is off") == 1
    assert AuditEntry.objects.filter(deed="top_up_changed", details={"is_on": False}).count() == 1
    account.top_up_enabled = True
    purchases.save_top_up(account, ceiling_cents=10_000)
    top_up.watch(workspace.pk)
    assert top_ups("paid") == 2


def test_a_bank_that_asks_is_answered_by_the_person(ready, twin, buy, workspace, pack):
    ready(ASKS_LATER)
    now = timezone.now()
    for hours in (0, 1, 30):
        top_up.watch(workspace.pk, now=now + timedelta(hours=hours))
        deliver(*twin.events)
    asked = [m for m in mail.outbox if "bank asks" in m.subject]
    assert (top_ups("needs_person"), top_ups(), len(asked)) == (1, 1, 1)
    assert f"/w/{workspace.slug}/credits/buy/" in asked[0].body
    buy()
    deliver(*twin.events)
    assert ledger.balance(workspace) == 60 + pack.total_credits


def test_a_lost_answer_is_asked_for_again_and_pays_once(ready, twin, workspace, pack, settings):
    ready()
    now = timezone.now()
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    with pytest.raises(stripe_client.StripeUnavailable):
        top_up.watch(workspace.pk, now=now)
    assert top_ups("open") == 1
    settings.STRIPE_API_BASE = twin.url
    for minutes in (0, 2, 4):
        top_up.watch(workspace.pk, now=now + timedelta(minutes=minutes))
    assert (top_ups("paid"), ledger.balance(workspace)) == (1, 60 + pack.total_credits)


def test_a_payment_that_takes_days_is_not_made_again(ready, twin, workspace, pack):
    ready(TAKES_DAYS)
    now = timezone.now()
    for hours in (0, 1, 25, 49):
        top_up.watch(workspace.pk, now=now + timedelta(hours=hours))
        # Stripe remembers the keys of requests for a day.
        twin.answers.clear()
    asked = Purchase.objects.get(is_top_up=True)
    made = [one["id"] for one in twin.all("payment_intent") if one["metadata"]["purchase"] == str(asked.pk)]
    assert (asked.status, made) == ("processing", [asked.stripe_payment_id])
    twin.settle(asked.stripe_payment_id, pays=True)
    top_up.watch(workspace.pk, now=now + timedelta(hours=72))
    assert (top_ups("paid"), ledger.balance(workspace)) == (1, 60 + pack.total_credits)


def test_three_debits_that_come_back_switch_it_off_too(ready, twin, workspace):
    ready(TAKES_DAYS)
    now = timezone.now()
    for days in range(0, 30, 3):
        top_up.watch(workspace.pk, now=now + timedelta(days=days))
        for asked in Purchase.objects.filter(is_top_up=True, status="processing"):
            twin.settle(asked.stripe_payment_id, pays=False)
        top_up.watch(workspace.pk, now=now + timedelta(days=days, hours=1))
    assert (top_ups("failed"), top_ups()) == (3, 3)
    assert not BillingAccount.objects.get().top_up_enabled
    assert [m.subject for m in mail.outbox].count("Automatic top-up is off") == 1


def test_one_low_balance_mail_for_each_crossing(workspace, settings):
    settings.STRIPE_SECRET_KEY = ""

    def move(credits):
        ledger.charge(workspace=workspace, credits=credits, reference=f"job{len(mail.outbox)}{credits}")
        top_up.watch(workspace.pk)
        top_up.watch(workspace.pk)

    move(ledger.balance(workspace) - 60)
    assert len(mail.outbox) == 0
    move(20)
    move(5)
    assert [m.subject for m in mail.outbox] == ["Your credits run low"]
    ledger.grant(workspace=workspace, credits=100, key="more")
    top_up.watch(workspace.pk)
    move(101)
    assert len(mail.outbox) == 2
