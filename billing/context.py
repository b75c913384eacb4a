"""The credit badge in the page frame."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from billing.ledger import balance


def credit_balance(request: HttpRequest) -> dict[str, object]:
    """Returns the balance of the workspace in the address, read on first use."""
    workspace = getattr(request, "workspace", None)
    if workspace is None:
        return {}
    return {"credit_balance": SimpleLazyObject(lambda: balance(workspace))}
