"""Refuses passwords that are known from breaches, without asking anybody else.

`breached_passwords.bin` holds a digest of each of the 113,361 passwords of ten characters and more among the million
that leaked most often (the list "10 million passwords, top 1,000,000" of OWASP SecLists, MIT licence). Shorter ones
are refused for their length. A digest is the first 5 bytes of SHA-256 of the password in lower case; they are sorted
and lie one after another, so that 570 kB answer by bisection. Among so few, a password that never leaked is taken for
one of them once in ten million.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

_DIGEST_BYTES: Final = 5
_FILE: Final = Path(__file__).with_name("breached_passwords.bin")


@functools.cache
def _digests() -> bytes:
    return _FILE.read_bytes()


def is_breached(password: str) -> bool:
    """Returns whether a password of ten or more characters is among those that leaked most often."""
    wanted = hashlib.sha256(password.casefold().encode()).digest()[:_DIGEST_BYTES]
    known = _digests()
    low, high = 0, len(known) // _DIGEST_BYTES
    while low < high:
        middle = (low + high) // 2
        if known[middle * _DIGEST_BYTES : (middle + 1) * _DIGEST_BYTES] < wanted:
            low = middle + 1
        else:
            high = middle
    return known[low * _DIGEST_BYTES : (low + 1) * _DIGEST_BYTES] == wanted


class BreachedPasswordValidator:
    """Django's interface for the check."""

    def validate(self, password: str, user: object = None) -> None:
        """Raises `ValidationError` for a password that leaked."""
        if is_breached(password):
            raise ValidationError(
                _("This password has leaked from other sites, so others will try it. Choose another one."),
                code="password_breached",
            )

    def get_help_text(self) -> str:
        """Returns the rule as a sentence."""
        return _("Your password cannot be one that has leaked from other sites.")
