"""The tasks that billing rings for. The ring itself is `accounts.doorbells`'; `sweep_billing` finds what was lost."""

from __future__ import annotations

import enum

from accounts.doorbells import ring

__all__ = ["Doorbell", "ring"]


class Doorbell(enum.StrEnum):
    """The tasks that domain modules ring for."""

    APPLY_EVENT = "billing.tasks.apply_event"
    WATCH_BALANCE = "billing.tasks.watch_balance"
