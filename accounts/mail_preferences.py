"""Which mails a person wants, and the one click that stops a kind of them (RFC 8058)."""

from __future__ import annotations

import enum
from typing import Any, Final, cast

from django.conf import settings
from django.core import signing
from django.db import models
from django.urls import reverse

from accounts.models import User


class Kind(enum.StrEnum):
    """Mails that can be stopped, by the field that says whether they are wanted."""

    SUCCESS = "mail_on_success"
    FAILURE = "mail_on_failure"
    EXPIRY = "mail_on_expiry"

    @property
    def in_words(self) -> str:
        """When such a mail comes, for people."""
        field = cast("models.Field[Any, Any]", User._meta.get_field(self.value))
        return str(field.verbose_name)


_signer: Final = signing.Signer(salt="mail-preferences")


def unsubscribe_address(user: User, kind: Kind) -> str:
    """Returns where one click stops this kind of mail; whoever holds the mail may click."""
    token = _signer.sign_object([user.pk, kind.value])
    return f"{settings.SITE_URL}{reverse('unsubscribe', args=[token])}"


def unsubscribe_headers(user: User, kind: Kind) -> dict[str, str]:
    """Returns the headers by which mail programs show a button of their own."""
    return {
        "List-Unsubscribe": f"<{unsubscribe_address(user, kind)}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def find(token: str) -> tuple[int, Kind] | None:
    """Returns the person's id and the kind of mail that an address is about, or None for a forged one."""
    try:
        person_id, kind = _signer.unsign_object(token)
        return int(person_id), Kind(kind)
    except (signing.BadSignature, TypeError, ValueError):
        return None


def stop(person_id: int, kind: Kind) -> None:
    """Stops a kind of mail. Safe to repeat."""
    User.objects.filter(pk=person_id).update(**{kind.value: False})
