"""Credits in the page frame: the badge, and what a member has spent."""

from __future__ import annotations

import functools

from django.http import HttpRequest

from accounts.models import Membership
from billing import limits
from billing.ledger import balance


def credit_balance(request: HttpRequest) -> dict[str, object]:
    """Returns the figures of the workspace in the address, each read on first use."""
    membership: Membership | None = getattr(request, "membership", None)
    return frame(membership) if membership is not None else {}


def frame(membership: Membership) -> dict[str, object]:
    """Returns what pages and sockets show of a member's credits."""
    workspace = membership.workspace
    # Templates call what can be called; the cache makes one query of many uses.
    return {
        "credit_balance": functools.cache(lambda: balance(workspace)),
        "spending": functools.cache(lambda: limits.spending_of(membership)),
        "member_spending": functools.cache(lambda: limits.spent_by_member(workspace)),
    }
