"""Refuses the network to tests: whatever is not this machine is an error, not a slow test."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

_LOCAL_NAMES = frozenset({"", "localhost", "testserver", socket.gethostname()})


class NetworkRefused(RuntimeError):
    """A test wanted to talk to another machine."""


def refuse_network(patch: pytest.MonkeyPatch) -> None:
    """Lets connections to this machine pass, and refuses all others and their name lookups."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _require_local(address[0])
        connect(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        _require_local(host)
        return look_up(host, *args, **kwargs)

    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket, "getaddrinfo", guarded_look_up)


def _require_local(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host or ""
    if not is_local(name):
        raise NetworkRefused(f"tests do not talk to {name}: use one of the servers of tests/services")


def is_local(host: str) -> bool:
    """Returns whether a name or address is this machine's own."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
