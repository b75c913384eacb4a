"""The statement: every movement with the balance after it, filtered, as a page or as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, cast

from django.db.models import OuterRef, Q, Subquery, Sum

from accounts.models import Workspace
from accounts.spreadsheets import csv_line
from billing.models import CreditEntry, CreditEntryQuerySet

_HEAD = ("time", "kind", "credits", "balance", "reference", "note")


def entries(
    workspace: Workspace, *, kind: str = "", since: date | None = None, until: date | None = None
) -> CreditEntryQuerySet:
    """Returns the movements that fit, newest first; each knows `balance_after`, filtered or not."""
    earlier = CreditEntry.objects.filter(
        Q(created_at__lt=OuterRef("created_at"))
        | Q(created_at=OuterRef("created_at"), pk__lte=OuterRef("pk")),
        workspace=OuterRef("workspace"),
    )
    total = earlier.order_by().values("workspace").annotate(total=Sum("credits")).values("total")
    found = _fitting(CreditEntry.objects.for_workspace(workspace), kind=kind, since=since, until=until)
    return cast(
        CreditEntryQuerySet, found.annotate(balance_after=Subquery(total)).order_by("-created_at", "-pk")
    )


def _fitting(found: Any, *, kind: str, since: date | None, until: date | None) -> Any:
    if kind:
        found = found.filter(kind=kind)
    if since:
        found = found.filter(created_at__date__gte=since)
    if until:
        found = found.filter(created_at__date__lte=until)
    return found


def csv_lines(
    workspace: Workspace, *, kind: str = "", since: date | None = None, until: date | None = None
) -> Iterator[str]:
    """Yields the movements that fit as lines of CSV, oldest first, with the balance after each."""
    yield csv_line(_HEAD)
    everything = CreditEntry.objects.for_workspace(workspace).order_by("created_at", "pk")
    wanted = set(_fitting(everything, kind=kind, since=since, until=until).values_list("pk", flat=True))
    balance = 0
    for entry in everything.iterator():
        balance += entry.credits
        if entry.pk in wanted:
            when = entry.created_at.isoformat(timespec="seconds")
            yield csv_line((when, entry.kind, entry.credits, balance, entry.reference, entry.note))
