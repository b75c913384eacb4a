"""Which machines a pasted link may lead to."""

from __future__ import annotations

import ipaddress
from typing import Final

#: Prefixes under which IPv6 carries an IPv4 address; the bits behind each prefix are that address.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def public_only(address: str) -> bool:
    """Returns whether an IP address is a machine of the public internet.

    Private, loopback, link-local (where clouds keep their metadata), shared, reserved and multicast networks are not,
    nor are addresses that only wrap one of them.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _wrapped(ip)
    if inner is not None:
        return public_only(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def loopback_too(address: str) -> bool:
    """Returns whether an address is public or this machine's own: for tests and for trying things out."""
    try:
        return ipaddress.ip_address(address).is_loopback or public_only(address)
    except ValueError:
        return False


def _wrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None
