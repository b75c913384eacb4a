"""Whether somebody signs in with more than a password."""

from __future__ import annotations

from allauth.mfa.utils import is_mfa_enabled

from accounts.models import User


def has_second_factor(user: User) -> bool:
    """Returns whether a code or a passkey is set up for this person."""
    return bool(is_mfa_enabled(user))
