"""Spending limits: checked in the transaction that charges, refunds count back, said before anybody presses."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse

from accounts import scope
from billing import ledger, limits
from billing.models import CreditEntry
from restorations import submission
from restorations.models import Restoration
from restorations.options import Options
from tests.factories import RestorationFactory, VideoFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def bobs(bob, workspace):
    """Bob, who may spend 10 credits a month."""
    workspace.memberships.filter(user=bob).update(monthly_limit=10)
    return workspace.memberships.select_related("workspace").get(user=bob)


def spend(workspace, person, credits, reference):
    return ledger.charge(workspace=workspace, credits=credits, reference=reference, spender=person)


def test_a_charge_that_does_not_fit_takes_nothing(workspace, bob, bobs):
    before = ledger.balance(workspace)
    spend(workspace, bob, 6, "thing:1")
    with pytest.raises(limits.LimitReached) as refused:
        spend(workspace, bob, 5, "thing:2")
    assert refused.value.spending == limits.Spending(limit=10, spent=6)
    assert "10 credits a month" in refused.value.spending.sentence
    spend(workspace, bob, 4, "thing:3")
    spend(workspace, bob, 6, "thing:1")  # the same thing again
    assert ledger.balance(workspace) == before - 10


def test_refunds_count_back(workspace, bob, bobs):
    spend(workspace, bob, 10, "thing:1")
    ledger.refund(workspace=workspace, credits=7, reference="thing:1")
    assert limits.spending_of(bobs) == limits.Spending(limit=10, spent=3)
    assert limits.spent_by_member(workspace) == {bob.pk: 3}


def test_last_month_does_not_count_and_nor_do_its_refunds(workspace, bob, bobs):
    CreditEntry.objects.create(
        workspace=workspace,
        kind=CreditEntry.Kind.CHARGE,
        credits=-9,
        key="thing:1:charge",
        reference="thing:1",
        spender=bob,
        created_at=limits.month_begin() - timedelta(seconds=1),
    )
    ledger.refund(workspace=workspace, credits=9, reference="thing:1")
    assert limits.spending_of(bobs).spent == 0
    spend(workspace, bob, 10, "thing:2")
    assert limits.spending_of(bobs).left == 0


def test_others_spend_their_own(workspace, alice, bob, bobs):
    spend(workspace, bob, 10, "thing:1")
    spend(workspace, alice, 50, "thing:2")
    assert limits.spent_by_member(workspace) == {alice.pk: 50, bob.pk: 10}


def test_the_quote_says_it_and_an_order_is_refused_with_everything_kept(signed_in, workspace, bob, bobs):
    workspace.memberships.filter(user=bob).update(monthly_limit=1)
    video, browser = VideoFactory(workspace=workspace), signed_in(bob)
    before = ledger.balance(workspace)
    page = browser.get(video.get_absolute_url()).content.decode()
    assert "You may spend 1 credit a month in this workspace, and have spent 0." in page
    answer = browser.post(
        reverse("video-restore", args=[workspace.slug, video.pk]), {"preset": "1080p", "seed": "77"}
    )
    assert answer.status_code == 422
    assert "You may spend 1 credit a month" in answer.content.decode()
    assert not Restoration.objects.exists()
    assert ledger.balance(workspace) == before


def test_the_members_page_shows_what_was_spent(signed_in, alice, workspace, bob, bobs):
    spend(workspace, bob, 6, "thing:1")
    page = signed_in(alice).get(reverse("member-list", args=[workspace.slug])).content.decode()
    assert "6 of 10 credits spent this month" in page


def test_an_order_counts_for_who_ordered_and_a_failure_counts_back(workspace, bob, bobs):
    workspace.memberships.filter(user=bob).update(monthly_limit=None)
    order = submission.submit(
        video=VideoFactory(workspace=workspace), user=bob, options=Options(preset="720p")
    )
    assert limits.spent_by_member(workspace) == {bob.pk: order.price_credits}
    ledger.refund(workspace=workspace, credits=order.price_credits, reference=order.reference)
    assert limits.spent_by_member(workspace) == {bob.pk: 0}
    RestorationFactory(video__workspace=workspace)
    assert limits.spent_by_member(workspace) == {bob.pk: 0}, "charges without a spender are nobody's"


@pytest.mark.django_db(transaction=True)
def test_charges_at_once_never_pass_the_limit_together(workspace, bob, bobs):
    ledger.grant(workspace=workspace, credits=1000, key="plenty")
    ready = threading.Barrier(4)

    def try_it(number):
        ready.wait()
        try:
            with scope.inside(workspace):
                spend(workspace, bob, 3, f"thing:{number}")
        except limits.LimitReached:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(try_it, range(4))) == 3
    assert limits.spending_of(bobs).spent == 9
