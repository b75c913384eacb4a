"""Doorbells: each task takes ids and makes one call inward. All of them may run twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from celery import shared_task
from django.utils import timezone

from accounts.scope import sees_everything
from billing import inbox, offers, purchases, stripe_client, top_up

#: A Checkout session lives for 24 hours.
_SESSION_IS_OVER: Final = timedelta(hours=25)


@shared_task(
    autoretry_for=(stripe_client.StripeUnavailable,), retry_backoff=2, retry_backoff_max=60, max_retries=5
)
@sees_everything
def apply_event(*, event_id: str) -> None:
    """Applies a stored webhook."""
    inbox.apply(event_id)


@shared_task(autoretry_for=(OSError,), retry_backoff=10, retry_backoff_max=300, max_retries=3)
def watch_balance(*, workspace_id: str) -> None:
    """Mails that credits run low, and buys more where that was asked for."""
    top_up.watch(workspace_id)


@shared_task
@sees_everything
def sweep_billing() -> None:
    """Every half minute: finds what lost rings and crashes left behind."""
    inbox.ring_again()
    top_up.ring_again()
    offers.delete_old()
    if stripe_client.is_configured():
        purchases.refresh_forgotten(before=timezone.now() - _SESSION_IS_OVER)
