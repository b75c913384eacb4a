"""The only writer of `CreditEntry` and `DebtEntry`: what comes in, what goes out, and the balance.

Each movement has a key that names it for good; a second call with the same key finds the first entry and
changes nothing, so every caller may repeat itself after a crash. The balance never falls below zero: when a
payment is returned whose credits are spent, the rest is a debt, which the next income pays first.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils.translation import gettext as _

from accounts.models import User, Workspace
from billing import limits
from billing.doorbells import Doorbell, ring
from billing.models import CreditEntry, DebtEntry

Kind = CreditEntry.Kind


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


def debt(workspace: Workspace) -> int:
    """Returns the credits that a workspace owes: spent, but their payment was returned."""
    total = DebtEntry.objects.for_workspace(workspace).aggregate(total=Sum("credits"))["total"]
    return total or 0


# --- What comes in ------------------------------------------------------------------------------------------


@transaction.atomic
def grant(
    *, workspace: Workspace, credits: int, key: str, note: str = "", actor: User | None = None
) -> CreditEntry:
    """Gives credits away, once per key. A gift is there to be spent: it pays no debt."""
    entry, _is_new = _write(workspace, Kind.GRANT, credits, key=f"grant:{key}", note=note, actor=actor)
    return entry


@transaction.atomic
def purchase(*, workspace: Workspace, credits: int, bonus: int, key: str, reference: str) -> None:
    """Adds what was bought and its bonus, once per key, and pays debts from it."""
    _receive(workspace, Kind.PURCHASE, credits, key=f"{key}:purchase", reference=reference)
    if bonus:
        _receive(workspace, Kind.BONUS, bonus, key=f"{key}:bonus", reference=reference)


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
    return _receive(
        workspace,
        Kind.REFUND,
        credits,
        key=f"{reference}:refund",
        reference=reference,
        note=note,
        spender_id=charged.spender_id,
    )


@transaction.atomic
def refund_rest(*, workspace: Workspace, reference: str, note: str = "") -> CreditEntry | None:
    """Gives back what is left of a charge after earlier refunds, once per reference; None when nothing is."""
    _lock(workspace)
    charged = CreditEntry.objects.for_workspace(workspace).filter(key=f"{reference}:charge").first()
    if charged is None:
        return None
    returned = sum(entry.credits for entry in refunds_of(workspace=workspace, reference=reference))
    if -charged.credits <= returned:
        return None
    return _receive(
        workspace,
        Kind.REFUND,
        -charged.credits - returned,
        key=f"{reference}:refund-rest",
        reference=reference,
        note=note,
        spender_id=charged.spender_id,
    )


def refunds_of(*, workspace: Workspace, reference: str) -> QuerySet[CreditEntry]:
    """Returns what was given back of the charge for one thing."""
    return CreditEntry.objects.for_workspace(workspace).filter(reference=reference, kind=Kind.REFUND)


@transaction.atomic
def reinstate(*, workspace: Workspace, credits: int, key: str, reference: str) -> None:
    """Gives credits again that were taken back, once per key: a dispute was won, or a refund failed."""
    _receive(workspace, Kind.REVERSAL, credits, key=key, reference=reference, note=_("The payment stands"))


def _receive(
    workspace: Workspace,
    kind: Kind,
    credits: int,
    *,
    key: str,
    reference: str,
    note: str = "",
    spender_id: int | None = None,
) -> CreditEntry:
    entry, is_new = _write(
        workspace, kind, credits, key=key, reference=reference, note=note, spender_id=spender_id
    )
    if is_new and (owed := min(debt(workspace), credits)) > 0:
        note = _("Pays what was owed")
        _write(workspace, Kind.REVERSAL, -owed, key=f"{key}:debt", reference=reference, note=note)
        _owe(workspace, -owed, key=f"{key}:debt", reference=reference)
    return entry


# --- What goes out ------------------------------------------------------------------------------------------


@transaction.atomic
def charge(*, workspace: Workspace, credits: int, reference: str, spender: User | None = None) -> CreditEntry:
    """Takes the price of one thing, once per reference.

    Raises `InsufficientCredits` when the balance does not cover it, and `limits.LimitReached` when the spender may
    not spend so much in this month.
    """
    _lock(workspace)
    key = f"{reference}:charge"
    known = CreditEntry.objects.for_workspace(workspace).filter(key=key).first()
    if known is not None:
        return known
    if spender is not None:
        limits.check(workspace, spender, price=credits)
    entry, _is_new = _write(workspace, Kind.CHARGE, -credits, key=key, reference=reference, spender=spender)
    remaining = balance(workspace)
    if remaining < 0:
        # Leaving atomic() by an exception takes the entry back.
        raise InsufficientCredits(price=credits, balance=remaining + credits)
    ring(Doorbell.WATCH_BALANCE, workspace_id=workspace.pk)
    return entry


@transaction.atomic
def take_back(*, workspace: Workspace, credits: int, key: str, reference: str) -> int:
    """Takes credits back whose payment was returned, once per key; returns how many became a debt.

    The balance stops at zero: what is spent already is owed.
    """
    _lock(workspace)
    known = DebtEntry.objects.for_workspace(workspace).filter(key=key).first()
    if known is not None or CreditEntry.objects.for_workspace(workspace).filter(key=key).exists():
        return known.credits if known else 0
    taken = min(credits, balance(workspace))
    if taken > 0:
        _write(workspace, Kind.REVERSAL, -taken, key=key, reference=reference)
    if credits > taken:
        _owe(workspace, credits - taken, key=key, reference=reference)
    ring(Doorbell.WATCH_BALANCE, workspace_id=workspace.pk)
    return credits - taken


# --- Writing ------------------------------------------------------------------------------------------------


def _lock(workspace: Workspace) -> None:
    # One writer at a time per workspace: sums are read under this lock. Rows that only point to the workspace
    # (no_key) need not wait for it.
    Workspace.objects.select_for_update(no_key=True).get(pk=workspace.pk)


def _write(
    workspace: Workspace, kind: Kind, credits: int, *, key: str, **values: Any
) -> tuple[CreditEntry, bool]:
    _lock(workspace)
    return CreditEntry.objects.get_or_create(
        key=key, defaults={"workspace": workspace, "kind": kind, "credits": credits, **values}
    )


def _owe(workspace: Workspace, credits: int, *, key: str, reference: str) -> None:
    DebtEntry.objects.create(workspace=workspace, credits=credits, key=key, reference=reference)


def grant_starter_credits(*, workspace: Workspace, **_signal: Any) -> None:
    """Gives a new personal workspace the credits that the settings name."""
    if workspace.is_personal and settings.STARTER_CREDITS:
        grant(
            workspace=workspace,
            credits=settings.STARTER_CREDITS,
            key=f"starter:{workspace.pk}",
            note=_("Welcome"),
        )
