"""Where the thing that a ledger entry is about can be seen. Billing does not know what it is: other apps tell."""

from __future__ import annotations

from collections.abc import Callable

from django.urls import reverse

from accounts.models import Workspace

Address = Callable[[Workspace, str], str]


def _purchase(workspace: Workspace, purchase_id: str) -> str:
    return reverse("purchase-detail", args=[workspace.slug, purchase_id])


_addresses: dict[str, Address] = {"purchase": _purchase}


def register(kind: str, address: Address) -> None:
    """Tells where references such as `kind:<id>` lead to."""
    _addresses[kind] = address


def address_of(workspace: Workspace, reference: str) -> str:
    """Returns the page of what a reference names, or nothing when nobody knows it."""
    kind, _colon, thing_id = reference.partition(":")
    address = _addresses.get(kind)
    return address(workspace, thing_id) if address and thing_id else ""
