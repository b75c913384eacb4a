"""Mails to people: in their words and on their clock, with a way to stop the kinds that can be stopped."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.utils.functional import Promise

from accounts import mail_preferences
from accounts.localization import as_seen_by
from accounts.mail_preferences import Kind
from accounts.models import User


def send(
    user: User, subject: Promise, template: str, context: dict[str, Any], *, kind: Kind | None = None
) -> None:
    """Mails a person, unless it is of a kind that they do not want.

    The subject is translated here, where the person's language is known, and may name values of the context:
    `%(title)s`. A mail server that refuses raises an OSError (smtplib's exceptions are such too).
    """
    if kind is not None and not getattr(user, kind.value):
        return
    context = {"user": user, "product_name": settings.PRODUCT_NAME, **context}
    if kind is not None:
        context["preferences_link"] = f"{settings.SITE_URL}/settings/"
        context["unsubscribe_link"] = mail_preferences.unsubscribe_address(user, kind)
    with as_seen_by(user):
        # A file's name may hold a line break, a subject may not.
        line = " ".join((str(subject) % context).split())
        text = render_to_string(template, context)
    headers = mail_preferences.unsubscribe_headers(user, kind) if kind is not None else None
    EmailMessage(line, text, to=[user.email], headers=headers).send()
