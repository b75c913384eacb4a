"""Quotes that bind us: a price that was shown holds for 15 minutes, and nobody ever pays more than it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from accounts.models import Workspace
from billing.models import Offer, PriceTable
from billing.pricing import Prices

BINDING: Final = timedelta(minutes=15)
#: Pages of the same minute share a row, which binds for a minute longer: each reader has the full time.
_SHARED: Final = timedelta(minutes=1)
_KEPT: Final = timedelta(days=1)


class PriceChanged(Exception):
    """More would be charged than was shown: the quote has expired, or is for something else; nothing was taken."""


def make(*, workspace: Workspace, subject: str, credits: int, prices: Prices) -> Offer:
    """Promises a price for a subject to a workspace, by one version of the price table."""
    now = timezone.now()
    shared = Offer.objects.for_workspace(workspace).filter(
        subject=subject,
        credits=credits,
        table__version=prices.version,
        accepted_by="",
        created_at__gt=now - _SHARED,
    )
    return shared.first() or Offer.objects.create(
        workspace=workspace,
        subject=subject,
        credits=credits,
        table=PriceTable.objects.get(version=prices.version),
        created_at=now,
        expires_at=now + BINDING + _SHARED,
    )


@transaction.atomic
def accept(
    *,
    workspace: Workspace,
    offer_id: UUID | None,
    subject: str,
    credits_now: int,
    prices_now: Prices,
    reference: str,
) -> Offer:
    """Records and returns what an order costs: what was shown, or less.

    `credits_now` is the price by today's table. A person pays the lower of both; without an offer, today's price.
    Raises `PriceChanged` when the offer has expired and the price has risen, or when it is for something cheaper: the
    person chose anew, and pressed the button before it said the new price.
    """
    mine = Offer.objects.for_workspace(workspace).filter(subject=subject)
    # A page that lost its quote's id is still bound by what it showed: the cheapest that has not expired.
    live = mine.filter(accepted_by="", expires_at__gt=timezone.now()).order_by("credits")
    shown = (mine.filter(pk=offer_id).first() if offer_id else None) or live.first()
    credits, table = credits_now, PriceTable.objects.get(version=prices_now.version)
    if shown and shown.credits < credits_now:
        if shown.expires_at <= timezone.now():
            raise PriceChanged(subject)
        credits, table = shown.credits, shown.table
    others = Offer.objects.for_workspace(workspace).exclude(subject=subject)
    if offer_id and others.filter(pk=offer_id, credits__lt=credits).exists():
        raise PriceChanged(subject)
    # A row of its own: the one that a page shows may serve several orders of the same thing.
    return Offer.objects.create(
        workspace=workspace,
        subject=subject,
        credits=credits,
        table=table,
        expires_at=shown.expires_at if shown else timezone.now(),
        accepted_by=reference,
    )


def version_accepted_by(reference: str) -> int | None:
    """Returns the version of the price table that an order was charged by; None for orders without an offer."""
    return Offer.objects.filter(accepted_by=reference).values_list("table__version", flat=True).first()


def delete_old() -> None:
    """Deletes offers that nobody took."""
    Offer.objects.filter(accepted_by="", expires_at__lt=timezone.now() - _KEPT).delete()
