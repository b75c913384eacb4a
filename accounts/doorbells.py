"""Ring for a Celery task once the transaction is committed.

The committed row is the outbox and the ring only the fast path: when the broker is away the ring is logged and
lost, and the app's sweep (here `accounts.tasks.sweep_accounts`) finds the row.
"""

from __future__ import annotations

import enum
import functools
from uuid import UUID

from celery import current_app
from django.db import transaction


class Doorbell(enum.StrEnum):
    """The tasks that domain modules ring for."""

    MAIL_INVITATION = "accounts.tasks.mail_invitation"
    MAIL_CLOSING = "accounts.tasks.mail_closing"
    PURGE_WORKSPACES = "accounts.tasks.sweep_accounts"


def ring(bell: enum.StrEnum, **ids: UUID | int) -> None:
    """Queues the task with these ids on commit; a broker that is away costs latency, not the change itself."""
    arguments = {name: str(value) for name, value in ids.items()}
    # robust: Django logs an exception instead of failing a request whose transaction is committed.
    transaction.on_commit(functools.partial(_send, bell, arguments), robust=True)


def _send(bell: enum.StrEnum, arguments: dict[str, str]) -> None:
    current_app.send_task(bell.value, kwargs=arguments, retry=False, ignore_result=True)
