"""Compare our purchases with Stripe's payments: find what webhooks did not bring, and repair it if asked to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from billing import purchases, stripe_client
from billing.models import Purchase
from billing.pricing import returned_credits


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that our books and Stripe's do not agree about."""

    purchase_id: UUID
    payment_id: str
    problem: str


def reconcile(*, days: int, repairs: bool) -> list[Finding]:
    """Returns what differs for the payments of the last days; with `repairs` it is brought up to date.

    Raises `stripe_client.StripeProblem`.
    """
    since = timezone.now() - timedelta(days=days)
    findings: list[Finding] = []
    seen: set[str] = set()
    for payment in stripe_client.payments_since(since):
        seen.add(payment.id)
        purchase = purchases.known_by(dict(payment.metadata))
        if purchase is not None and (problem := _difference(purchase, payment)):
            findings.append(Finding(purchase_id=purchase.pk, payment_id=payment.id, problem=problem))
            if repairs:
                purchases.refresh(purchase, payment_id=payment.id)
    ours = Purchase.objects.filter(status=Purchase.Status.PAID, created_at__gte=since)
    for purchase in ours.exclude(stripe_payment_id="").exclude(stripe_payment_id__in=seen):
        findings.append(
            Finding(
                purchase_id=purchase.pk,
                payment_id=purchase.stripe_payment_id,
                problem="paid here, and Stripe does not list its payment",
            )
        )
    return findings


def _difference(purchase: Purchase, payment: stripe_client.Payment) -> str:
    is_paid = payment.status == "succeeded"
    if is_paid and purchase.status != Purchase.Status.PAID:
        return f"paid at Stripe, {purchase.status} here"
    if not is_paid and purchase.status == Purchase.Status.PAID and purchase.stripe_payment_id == payment.id:
        return f"paid here, {payment.status} at Stripe"
    wanted = returned_credits(credits=purchase.total_credits, paid=payment.paid, returned=payment.returned)
    if is_paid and wanted != purchase.reversed_credits:
        return f"{purchase.reversed_credits} credits were taken back, {wanted} should be"
    return ""
