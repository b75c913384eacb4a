"""What a member may spend in a calendar month (UTC)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.models import Membership, User, Workspace
from billing.models import CreditEntry

Kind = CreditEntry.Kind


@dataclass(frozen=True, slots=True)
class Spending:
    """What a member may spend in this month, and has spent."""

    limit: int
    spent: int

    @property
    def left(self) -> int:
        """Credits that still fit."""
        return max(0, self.limit - self.spent)

    @property
    def sentence(self) -> str:
        """Says how much it is, and what to do when that is not enough."""
        what = ngettext(
            "You may spend %(limit)s credit a month in this workspace, and have spent %(spent)s.",
            "You may spend %(limit)s credits a month in this workspace, and have spent %(spent)s.",
            self.limit,
        ) % {"limit": self.limit, "spent": self.spent}
        return f"{what} {_('Ask its owner or an admin for more, or wait for the next month.')}"


class LimitReached(Exception):
    """A charge would go beyond what its member may spend in this month; nothing was taken."""

    def __init__(self, spending: Spending) -> None:
        super().__init__(f"{spending.spent} of {spending.limit} credits are spent this month")
        self.spending = spending


def spending_of(member: Membership) -> Spending | None:
    """Returns what a member may still spend this month, None without a limit."""
    if member.monthly_limit is None:
        return None
    total = _spent(member.workspace).filter(spender=member.user_id).aggregate(total=Sum("credits"))["total"]
    return Spending(limit=member.monthly_limit, spent=-(total or 0))


def month_begin() -> datetime:
    """Returns when this month began."""
    return timezone.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def spent_by_member(workspace: Workspace) -> dict[int, int]:
    """Returns the credits that each member has spent this month, by the person's id."""
    totals = _spent(workspace).values_list("spender").annotate(total=Sum("credits"))
    return {spender: -total for spender, total in totals if spender is not None}


def _spent(workspace: Workspace) -> QuerySet[Any]:
    # A refund counts in the month of its charge, whenever it comes: it carries the charge's spender.
    charged = CreditEntry.objects.for_workspace(workspace).filter(
        kind=Kind.CHARGE, created_at__gte=month_begin(), spender__isnull=False
    )
    moved = CreditEntry.objects.for_workspace(workspace).filter(kind__in=(Kind.CHARGE, Kind.REFUND))
    return moved.filter(reference__in=charged.values("reference"))


def check(workspace: Workspace, spender: User, *, price: int) -> None:
    """Raises `LimitReached` when the price does not fit; the caller holds the workspace's lock."""
    member = Membership.objects.for_workspace(workspace).filter(user=spender).first()
    spending = spending_of(member) if member else None
    if spending is not None and price > spending.left:
        raise LimitReached(spending)
