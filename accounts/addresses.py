"""The network address of whoever sends a request."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from django.conf import settings
from django.http import HttpRequest

#: A unix socket has no address.
_NOWHERE: Final = IPv4Address(0)


def client_address(request: HttpRequest) -> str:
    """Returns the client's IP address as text; the peer's own where no proxy is trusted.

    Each of the `TRUSTED_PROXIES` in front of the site appends to `X-Forwarded-For` the address that it was called
    from, so the client is that many entries from the end. Whatever stands before that, the client has written
    itself. With fewer entries than proxies the request came another way, and only the peer is certain.
    """
    peer = _address(request.META.get("REMOTE_ADDR") or "") or _NOWHERE
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    if not settings.TRUSTED_PROXIES or len(hops) < settings.TRUSTED_PROXIES:
        return str(peer)
    return str(_address(hops[-settings.TRUSTED_PROXIES]) or peer)


def client_network(request: HttpRequest) -> str:
    """Returns what limits count by: whoever has an IPv6 address has the 2^64 beside it as well."""
    address = client_address(request)
    return str(ip_network(f"{address}/64", strict=False)) if ":" in address else address


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Returns an address; an IPv4 address that a machine with both writes as IPv6 is the IPv4 address."""
    try:
        # The zone says by which of the machine's interfaces it came.
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
