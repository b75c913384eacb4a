"""How templates write money."""

from __future__ import annotations

from django import template

register = template.Library()


@register.filter
def money(cents: int, currency: str = "usd") -> str:
    """Returns an amount in the currency's hundredth part, such as $5.00 or 5.00 EUR."""
    amount = f"{cents // 100:,}.{cents % 100:02d}"
    return f"${amount}" if currency == "usd" else f"{amount} {currency.upper()}"


@register.filter
def of(figures: dict[int, int], person_id: int) -> int:
    """Returns a person's figure, 0 for nobody's."""
    return figures.get(person_id, 0)
