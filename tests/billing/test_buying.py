"""The buy page, the way to Stripe and back, the statement, and pages without keys."""

from __future__ import annotations

import csv
from urllib.parse import parse_qs, urlsplit

import pytest
from django.urls import reverse

from accounts.models import AuditEntry
from billing import ledger
from billing.models import BillingAccount, CreditEntry, Purchase
from restorations.options import Options
from restorations.quotes import quote
from tests.billing.delivery import deliver
from tests.factories import RestorationFactory, VideoFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(signed_in, alice):
    return signed_in(alice)


def at(name, workspace, *more):
    return reverse(name, args=[workspace.slug, *more])


def checkout(client, workspace, pack, **more):
    return client.post(at("credit-checkout", workspace), {"pack": pack.pk, **more})


def test_without_keys_the_page_says_what_is_missing(client, workspace, pack, settings):
    settings.STRIPE_SECRET_KEY = settings.STRIPE_WEBHOOK_SECRET = ""
    page = client.get(at("credit-buy", workspace)).content.decode()
    assert "STRIPE_SECRET_KEY, STRIPE_WEBHOOK_SECRET" in page
    assert at("credit-checkout", workspace) not in page
    assert checkout(client, workspace, pack).headers["location"] == at("credit-buy", workspace)
    assert not Purchase.objects.exists()


def test_buying_what_is_missing_leads_back_to_the_same_form(client, twin, workspace, pack):
    video = VideoFactory(workspace=workspace)
    ledger.charge(workspace=workspace, credits=ledger.balance(workspace) - 5, reference="elsewhere")
    answer = client.post(at("video-buy", workspace, video.pk), {"preset": "2k", "seed": "77"})
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert int(asked["missing"][0]) == quote(video, Options(preset="2k")).credits - 5
    page = client.get(answer.headers["location"]).content.decode()
    assert "Enough for your video" in page

    to_stripe = checkout(client, workspace, pack, next=asked["next"][0])
    purchase = Purchase.objects.get()
    session = twin.get(purchase.stripe_session_id)
    assert to_stripe.headers["location"] == session["url"]
    twin.pay_checkout(session, "4242424242424242")

    back = client.get(urlsplit(session["success_url"]).path)
    assert back.headers["location"] == asked["next"][0]
    form = client.get(back.headers["location"]).content.decode()
    assert 'value="77"' in form
    checked = form[form.index('value="2k"') :]
    assert "checked" in checked[: checked.index(">")]
    assert ledger.balance(workspace) == 5 + pack.total_credits


def test_after_a_change_of_stripes_account_everything_is_bought_there(client, twin, workspace, pack):
    assert checkout(client, workspace, pack).headers["location"].startswith(twin.url)
    # As with the key of the tests first, and the live one later: nothing of before is known there.
    twin.forget()
    for _ in range(2):
        assert checkout(client, workspace, pack).headers["location"].startswith(twin.url)
    assert len(twin.all("customer")) == len(twin.all("price")) == 1
    assert Purchase.objects.exclude(stripe_session_id="").count() == 3


def test_htmx_is_sent_to_the_buy_page(client, workspace):
    video = VideoFactory(workspace=workspace)
    answer = client.post(
        at("video-buy", workspace, video.pk), {"preset": "720p"}, headers={"HX-Request": "true"}
    )
    assert answer.headers["HX-Redirect"].startswith(at("credit-buy", workspace))


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_nobody_is_sent_elsewhere_after_paying(client, twin, workspace, pack, elsewhere):
    checkout(client, workspace, pack, next=elsewhere)
    assert Purchase.objects.get().return_path == ""


def test_stripe_being_away_is_said(client, twin, workspace, pack, settings):
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    answer = client.post(at("credit-checkout", workspace), {"pack": pack.pk}, follow=True)
    assert "does not answer" in answer.content.decode()


def test_one_customer_and_one_price_serve_many_purchases(client, twin, workspace, pack):
    checkout(client, workspace, pack)
    checkout(client, workspace, pack)
    sessions = [twin.get(purchase.stripe_session_id) for purchase in Purchase.objects.all()]
    assert len({session["customer"] for session in sessions}) == 1
    pack.refresh_from_db()
    before = pack.stripe_price_id
    pack.price_cents = 2600
    pack.save()
    checkout(client, workspace, pack)
    pack.refresh_from_db()
    assert pack.stripe_price_id != before
    assert twin.get(before)["active"] is False
    assert twin.get(pack.stripe_price_id)["unit_amount"] == 2600


def test_the_portal_opens_for_who_has_bought(client, twin, workspace, pack):
    assert client.post(at("credit-portal", workspace)).headers["location"] == at("credit-buy", workspace)
    checkout(client, workspace, pack)
    assert client.post(at("credit-portal", workspace)).headers["location"].startswith(f"{twin.url}/portal/")


def test_the_statement_links_counts_and_filters(client, twin, workspace, buy):
    purchase = buy()
    deliver(*twin.events)
    restoration = RestorationFactory(video=VideoFactory(workspace=workspace))
    ledger.refund(workspace=workspace, credits=3, reference=restoration.reference)
    page = client.get(at("credit-statement", workspace)).content.decode()
    assert restoration.get_absolute_url() in page
    assert at("purchase-detail", workspace, purchase.pk) in page
    assert f"{ledger.balance(workspace):,} after it" in page
    only = client.get(at("credit-statement", workspace), {"kind": "refund"}).context["page"].object_list
    assert [entry.credits for entry in only] == [3]
    assert only[0].balance_after == ledger.balance(workspace)
    receipt = client.get(at("purchase-detail", workspace, purchase.pk)).content.decode()
    assert f"{twin.url}/invoices/" in receipt


def test_the_log_does_not_say_that_a_buyer_came_from_where_another_looked(
    signed_in, twin, buy, vera, workspace
):
    purchase = buy()
    # The first to ask Stripe about it is somebody who looks at the page.
    signed_in(vera).get(at("purchase-detail", workspace, purchase.pk), REMOTE_ADDR="198.51.100.9")
    entry = AuditEntry.objects.for_workspace(workspace).get(deed="purchased")
    assert (entry.actor, entry.address, entry.user_agent) == (purchase.created_by, None, "")


@pytest.mark.parametrize("missing", ["", "-5", "many", "²", "9" * 5000])
def test_a_number_that_is_none_is_left_out(client, workspace, missing):
    page = client.get(at("credit-buy", workspace), {"missing": missing})
    assert (page.status_code, page.context["missing"], page.context["fitting"]) == (200, 0, None)


def test_invoices_are_for_those_who_buy(signed_in, twin, buy, bob, vera, workspace):
    purchase = buy()
    deliver(*twin.events)
    for person in (bob, vera):
        page = signed_in(person).get(at("purchase-detail", workspace, purchase.pk))
        assert page.status_code == 200
        # They name the buyer, with address, tax id and card.
        assert twin.url not in page.content.decode()


def test_the_statement_as_csv_adds_up(client, twin, workspace, buy):
    buy()
    deliver(*twin.events)
    ledger.charge(workspace=workspace, credits=7, reference="restoration:x")
    ledger.grant(workspace=workspace, credits=1, key="odd", note="=1+1")
    answer = client.get(at("credit-statement-csv", workspace))
    rows = list(csv.DictReader(answer.content.decode().splitlines()))
    assert len(rows) == CreditEntry.objects.for_workspace(workspace).count()
    total = 0
    for row in rows:
        total += int(row["credits"])
        assert int(row["balance"]) == total
    assert total == ledger.balance(workspace)
    assert rows[-1]["note"] == "'=1+1"


def test_top_up_settings_are_checked_and_saved(client, twin, workspace, pack):
    form = {"top_up_enabled": "on", "top_up_threshold": 200, "top_up_pack": pack.pk, "low_credits": 10}
    refused = client.post(at("top-up-update", workspace), form | {"ceiling_dollars": 20})
    assert refused.status_code == 422
    assert "less than one purchase costs" in refused.content.decode()
    assert client.post(at("top-up-update", workspace), form | {"ceiling_dollars": 50}).status_code == 302
    account = BillingAccount.objects.get(workspace=workspace)
    assert (account.top_up_enabled, account.top_up_ceiling_cents) == (True, 5000)
