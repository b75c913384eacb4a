"""Doorbells: each task takes ids and makes one call inward. All of them may run twice."""

from __future__ import annotations

from celery import shared_task

from accounts import closing, invitations, workspaces
from accounts.scope import sees_everything


@shared_task(autoretry_for=(OSError,), retry_backoff=10, retry_backoff_max=300, max_retries=5, time_limit=60)
def mail_invitation(*, invitation_id: str) -> None:
    """Mails an invitation's link."""
    invitations.mail(invitation_id)


@shared_task(autoretry_for=(OSError,), retry_backoff=10, retry_backoff_max=300, max_retries=5, time_limit=60)
def mail_closing(*, user_id: str) -> None:
    """Mails when a closed account is deleted."""
    closing.mail_closing(user_id)


@shared_task
@sees_everything
def sweep_accounts() -> None:
    """Every minute: sends what was not sent, and deletes workspaces and accounts whose grace period is over."""
    invitations.ring_again()
    closing.ring_again()
    workspaces.purge_due()
    closing.delete_due()
