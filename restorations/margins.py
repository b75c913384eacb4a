"""What restorations earn: credits kept, less what their GPU seconds cost, all attempts included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

from django.db.models import Q, QuerySet, Sum

from restorations.models import Restoration

#: One credit is sold for one cent.
MICRODOLLARS_PER_CREDIT: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """Income and cost in millionths of a dollar."""

    income: int
    cost: int

    @property
    def percent(self) -> int | None:
        """What is left of the income, in percent; None without income."""
        return (self.income - self.cost) * 100 // self.income if self.income else None


def with_costs(restorations: QuerySet[Restoration]) -> QuerySet[Restoration]:
    """Returns the restorations with `cost`, the sum over their attempts, in millionths of a dollar."""
    return restorations.annotate(cost=Sum("attempts__cost_microdollars", default=0))


def margin_of(restoration: Restoration) -> Margin:
    """Returns the margin of a restoration that has `cost`."""
    kept = restoration.price_credits - restoration.refunded_credits
    cost: int = restoration.cost  # type: ignore[attr-defined]
    return Margin(income=kept * MICRODOLLARS_PER_CREDIT, cost=cost)


def by_day_and_preset(restorations: QuerySet[Restoration]) -> list[tuple[date, str, int, Margin]]:
    """Returns day, preset, number of ended restorations and their margin together, newest day first."""
    ended = with_costs(restorations.filter(~Q(status__in=Restoration.ACTIVE), finished_at__isnull=False))
    groups: dict[tuple[date, str], list[Margin]] = defaultdict(list)
    for restoration in ended:
        assert restoration.finished_at is not None
        groups[restoration.finished_at.date(), restoration.preset].append(margin_of(restoration))
    ordered = sorted(groups.items(), key=lambda item: item[0][1])
    ordered.sort(key=lambda item: item[0][0], reverse=True)
    return [(day, preset, len(margins), _together(margins)) for (day, preset), margins in ordered]


def _together(margins: Iterable[Margin]) -> Margin:
    margins = list(margins)
    return Margin(income=sum(m.income for m in margins), cost=sum(m.cost for m in margins))
