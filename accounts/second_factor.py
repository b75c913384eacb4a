"""Whether somebody signs in with more than a password."""

from __future__ import annotations

from django.apps import apps

from accounts.models import User


def has_second_factor(user: User) -> bool:
    """Returns whether a code or a passkey is set up for this person."""
    if not apps.is_installed("allauth.mfa"):
        return False
    from allauth.mfa.utils import is_mfa_enabled  # The app may not be installed.

    return bool(is_mfa_enabled(user))
