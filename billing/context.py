"""The credit badge in the page frame."""

from __future__ import annotations

import functools

from django.http import HttpRequest

from billing.ledger import balance


def credit_balance(request: HttpRequest) -> dict[str, object]:
    """Returns the balance of the workspace in the address, read on first use."""
    workspace = getattr(request, "workspace", None)
    if workspace is None:
        return {}
    # Templates call what can be called; the cache makes one query of many uses.
    return {"credit_balance": functools.cache(lambda: balance(workspace))}
