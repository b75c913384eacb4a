"""What operators do: give credits with a reason, edit prices by versions, see margins and debts."""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone

from billing import ledger, price_tables
from billing.models import CreditEntry, PriceTable
from restorations.models import Restoration
from tests.factories import AttemptFactory, RestorationFactory, VideoFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(signed_in, operator):
    return signed_in(operator)


def test_a_grant_needs_a_reason_and_keeps_who_gave_it(client, operator, workspace):
    before = ledger.balance(workspace)
    url = reverse("admin:billing_creditentry_add")
    form = {"workspace": str(workspace.pk), "credits": "250"}
    assert client.post(url, form | {"note": ""}).status_code == 200
    assert ledger.balance(workspace) == before
    assert client.post(url, form | {"note": "The upload page was down"}).status_code == 302
    entry = CreditEntry.objects.for_workspace(workspace).latest("pk")
    assert (entry.kind, entry.credits, entry.actor) == ("grant", 250, operator)
    assert entry.note == "The upload page was down"


def test_a_negative_grant_is_refused(client, workspace):
    form = {"workspace": str(workspace.pk), "credits": "-5", "note": "no"}
    assert client.post(reverse("admin:billing_creditentry_add"), form).status_code == 200
    assert CreditEntry.objects.for_workspace(workspace).count() == 1


def test_prices_change_by_copying_editing_and_publishing(client):
    url = reverse("admin:billing_pricetable_changelist")
    act = {"_selected_action": PriceTable.objects.get().pk}
    client.post(url, act | {"action": "copy_to_draft"})
    draft = PriceTable.objects.get(version=2)
    assert price_tables.current().version == 1
    draft.rates.update(pixels_per_credit=9_000_000)
    client.post(url, {"_selected_action": draft.pk, "action": "publish"})
    assert price_tables.current().version == 2
    page = reverse("admin:billing_pricetable_change", args=[draft.pk])
    assert client.post(page, {"minimum_credits": 5}).status_code == 403


def test_margins_count_all_attempts_and_only_what_was_kept(client, workspace):
    restoration = RestorationFactory(video=VideoFactory(workspace=workspace))
    AttemptFactory(restoration=restoration, cost_microdollars=10_000)
    AttemptFactory(restoration=restoration, number=2, cost_microdollars=5_000)
    Restoration.objects.update(
        status="succeeded", finished_at=timezone.now(), price_credits=7, refunded_credits=4
    )
    page = client.get(reverse("admin:restorations_restoration_changelist"))
    [(day, preset, count, margin)] = page.context["margins"]
    assert (day, preset, count) == (timezone.now().date(), "720p", 1)
    assert (margin.income, margin.cost, margin.percent) == (30_000, 15_000, 50)


@pytest.mark.parametrize(
    "name", ["creditpack", "purchase", "debtentry", "billingaccount", "stripeevent", "gpuprice", "pricetable"]
)
def test_every_list_opens(client, workspace, name):
    assert client.get(reverse(f"admin:billing_{name}_changelist")).status_code == 200
