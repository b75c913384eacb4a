"""The client's address: what proxies that we trust say, and nothing that the client says."""

import pytest
from django.test import RequestFactory

from accounts.addresses import client_address

PEER = "10.0.0.1"


def address(forwarded: str | None = None) -> str:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return client_address(RequestFactory().get("/", headers=headers, REMOTE_ADDR=PEER))


def test_without_a_proxy_the_header_is_the_clients_own_invention() -> None:
    assert address("8.8.8.8") == PEER


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (1, "198.51.100.7", "198.51.100.7"),
        (1, "8.8.8.8, 198.51.100.7", "198.51.100.7"),
        (2, "8.8.8.8, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        (1, "2001:db8::1", "2001:db8::1"),
        (1, "::ffff:198.51.100.7", "198.51.100.7"),
        (1, "fe80::1%eth0", "fe80::1"),
        # Another way than through all proxies, or nonsense: only the peer is certain.
        (2, "8.8.8.8", PEER),
        (1, "nonsense", PEER),
        (1, None, PEER),
    ],
)
def test_each_trusted_proxy_adds_one(settings, proxies: int, forwarded: str | None, expected: str) -> None:
    settings.TRUSTED_PROXIES = proxies
    assert address(forwarded) == expected
