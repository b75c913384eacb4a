"""Whether somebody signs in with more than a password."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from allauth.usersessions.models import UserSession
from django.http import HttpRequest

from accounts.models import User

_STEPS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Returns whether a code or a passkey is set up for this person."""
    return bool(is_mfa_enabled(user))


def end_other_sessions(
    *, request: HttpRequest, user: User, authenticator: Authenticator, **_signal: Any
) -> None:
    """Ends the sessions that came in by the password alone, when somebody sets up their first second step.

    What asks for one takes every session of its owner for safe.
    """
    before = Authenticator.objects.filter(user=user, type__in=_STEPS).exclude(pk=authenticator.pk)
    if authenticator.type not in _STEPS or before.exists():
        return
    for session in UserSession.objects.filter(user=user).exclude(session_key=request.session.session_key):
        session.end()
