"""The network address of whoever sends a request."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """Returns the client's IP address as text; the peer's own where no proxy is trusted.

    Each of the `TRUSTED_PROXIES` in front of the site appends to `X-Forwarded-For` the address that it was called
    from, so the client is that many entries from the end. Whatever stands before that, the client has written
    itself. With fewer entries than proxies the request came another way, and only the peer is certain.
    """
    peer = str(request.META.get("REMOTE_ADDR") or "0.0.0.0")  # noqa: S104  a unix socket has no address
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    if not settings.TRUSTED_PROXIES or len(hops) < settings.TRUSTED_PROXIES:
        return peer
    try:
        return str(ipaddress.ip_address(hops[-settings.TRUSTED_PROXIES].strip()))
    except ValueError:
        return peer
