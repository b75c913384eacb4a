"""The only writer of `CreditEntry`: grant, charge, refund, and the balance.

Each movement has a key that names it for good; a second call with the same key finds the first entry and
changes nothing, so every caller may repeat itself after a crash.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils.translation import gettext_lazy as _

from accounts.models import Workspace
from billing.models import CreditEntry


class InsufficientCredits(Exception):
    """The balance does not cover a charge; nothing was taken."""

    def __init__(self, *, price: int, balance: int) -> None:
        super().__init__(f"the price is {price} credits, the balance {balance}")
        self.price = price
        self.balance = balance

    @property
    def missing(self) -> int:
        """Credits to buy before the charge goes through."""
        return self.price - self.balance


def balance(workspace: Workspace) -> int:
    """Returns the credits that a workspace can spend: the sum of its ledger."""
    total = CreditEntry.objects.for_workspace(workspace).aggregate(total=Sum("credits"))["total"]
    return total or 0


@transaction.atomic
def grant(*, workspace: Workspace, credits: int, key: str, note: str = "") -> CreditEntry:
    """Gives credits away, once per key."""
    return _write(workspace, CreditEntry.Kind.GRANT, credits, key=f"grant:{key}", note=note)


@transaction.atomic
def charge(*, workspace: Workspace, credits: int, reference: str) -> CreditEntry:
    """Takes the price of one thing, once per reference.

    Raises `InsufficientCredits` when the balance does not cover it.
    """
    entry = _write(
        workspace, CreditEntry.Kind.CHARGE, -credits, key=f"{reference}:charge", reference=reference
    )
    remaining = balance(workspace)
    if remaining < 0:
        # Leaving atomic() by an exception takes the entry back.
        raise InsufficientCredits(price=credits, balance=remaining + credits)
    return entry


@transaction.atomic
def refund(*, workspace: Workspace, credits: int, reference: str, note: str = "") -> CreditEntry | None:
    """Gives back what was charged for one thing, or a part of it, once per reference.

    Returns None when there is nothing to give back. Raises `ValueError` for more than was charged.
    """
    charged = CreditEntry.objects.for_workspace(workspace).filter(key=f"{reference}:charge").first()
    if credits <= 0 or charged is None:
        return None
    if credits > -charged.credits:
        raise ValueError(f"{reference}: cannot give back {credits} of {-charged.credits} credits")
    return _write(
        workspace, CreditEntry.Kind.REFUND, credits, key=f"{reference}:refund", reference=reference, note=note
    )


def _write(
    workspace: Workspace,
    kind: CreditEntry.Kind,
    credits: int,
    *,
    key: str,
    reference: str = "",
    note: str = "",
) -> CreditEntry:
    # One spender at a time per workspace: the sum is read under this lock.
    Workspace.objects.select_for_update().get(pk=workspace.pk)
    entry, _created = CreditEntry.objects.get_or_create(
        key=key,
        defaults={
            "workspace": workspace,
            "kind": kind,
            "credits": credits,
            "reference": reference,
            "note": note,
        },
    )
    return entry


def grant_starter_credits(*, workspace: Workspace, **_signal: Any) -> None:
    """Gives a new personal workspace the credits that the settings name."""
    if workspace.is_personal and settings.STARTER_CREDITS:
        grant(
            workspace=workspace,
            credits=settings.STARTER_CREDITS,
            key=f"starter:{workspace.pk}",
            note=str(_("Welcome")),
        )
