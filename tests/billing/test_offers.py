"""Quotes bind for 15 minutes, and nobody pays more than they were shown."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from billing import ledger, offers, price_tables
from billing.models import Offer, PriceRate, PriceTable, PublishedIsFinal
from restorations import lifecycle, submission
from restorations.options import Options
from restorations.quotes import binding_quotes, price_of_result, quote
from tests.factories import VideoFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def video(workspace):
    return VideoFactory(workspace=workspace)


def publish(pixels_per_credit):
    table = price_tables.draft(PriceTable.objects.get(version=price_tables.current().version))
    table.rates.update(pixels_per_credit=pixels_per_credit)
    assert price_tables.publish(table)
    return table


def shown(video, preset="1080p"):
    return next(offer for offer in binding_quotes(video, Options(preset=preset))[0] if offer.preset == preset)


def order(video, alice, offer, preset="1080p"):
    return submission.submit(video=video, user=alice, options=Options(preset=preset), offer_id=offer.offer_id)


def test_a_dearer_table_does_not_change_what_was_shown(video, alice):
    offer = shown(video)
    publish(5_000_000)
    assert quote(video, Options(preset="1080p")).credits > offer.credits
    assert order(video, alice, offer).price_credits == offer.credits


def test_a_cheaper_table_is_used_at_once(video, alice):
    offer = shown(video)
    publish(20_000_000)
    assert (
        order(video, alice, offer).price_credits
        == quote(video, Options(preset="1080p")).credits
        < offer.credits
    )


def test_an_old_quote_with_a_dearer_price_asks_again_and_takes_nothing(video, alice, workspace):
    before = ledger.balance(workspace)
    offer = shown(video)
    Offer.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    publish(5_000_000)
    with pytest.raises(offers.PriceChanged):
        order(video, alice, offer)
    assert ledger.balance(workspace) == before


def test_a_quote_of_another_workspace_does_not_bind(video, alice):
    publish(5_000_000)
    stranger = shown(VideoFactory(), "1080p")
    assert order(video, alice, stranger).price_credits == quote(video, Options(preset="1080p")).credits


def test_who_chooses_anew_never_pays_more_than_the_button_said(video, alice, workspace):
    before = ledger.balance(workspace)
    cheap, dear = shown(video, "720p"), shown(video, "2k")
    with pytest.raises(offers.PriceChanged):
        order(video, alice, cheap, preset="2k")
    assert ledger.balance(workspace) == before
    assert order(video, alice, dear, preset="720p").price_credits == cheap.credits


def test_pages_of_a_minute_share_a_quote_that_holds_for_its_time(video):
    first, second = shown(video), shown(video)
    assert first.offer_id == second.offer_id
    assert Offer.objects.get(pk=first.offer_id).expires_at >= timezone.now() + offers.BINDING


def test_a_result_with_fewer_frames_costs_less_by_the_table_of_its_order(video, alice):
    restoration = order(video, alice, shown(video))
    publish(1_000_000)
    half = price_of_result(restoration, num_frames=50)
    assert half == -(-1440 * 1080 * 50 // 10_000_000) < restoration.price_credits
    assert price_of_result(restoration, num_frames=1000) == restoration.price_credits


def test_cancelling_gives_back_what_was_paid_not_what_it_costs_now(video, alice, workspace):
    before = ledger.balance(workspace)
    restoration = order(video, alice, shown(video))
    publish(5_000_000)
    lifecycle.cancel(restoration, actor=alice)
    assert ledger.balance(workspace) == before


def test_a_published_table_never_changes():
    table = PriceTable.objects.get(version=1)
    for change in (table.save, table.delete, table.rates.first().save):
        with pytest.raises(PublishedIsFinal):
            change()
    with pytest.raises(ValueError, match="has no rates"):
        price_tables.publish(PriceTable.objects.create(version=99))
    assert PriceRate.objects.filter(table=table).count() == 9


def test_quotes_that_nobody_took_are_deleted_and_the_others_kept(video, alice):
    restoration = order(video, alice, shown(video))
    Offer.objects.update(expires_at=timezone.now() - timedelta(days=2))
    offers.delete_old()
    assert list(Offer.objects.values_list("accepted_by", flat=True)) == [restoration.reference]
