"""The only writer of the audit log: who did what in a workspace, when, and from where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

from django.db import connection, models
from django.utils.translation import gettext_lazy as _

from accounts import scope
from accounts.models import AuditEntry, AuditEntryQuerySet, User, Workspace
from accounts.spreadsheets import csv_line


class Deed(models.TextChoices):
    """What is worth an entry."""

    WORKSPACE_CREATED = "workspace_created", _("Made the workspace")
    WORKSPACE_CHANGED = "workspace_changed", _("Changed the settings")
    SIGN_IN_POLICY = "sign_in_policy", _("Changed the sign-in rules")
    WORKSPACE_CLOSING = "workspace_closing", _("Ordered the workspace's deletion")
    WORKSPACE_KEPT = "workspace_kept", _("Took the deletion back")
    WORKSPACE_DELETED = "workspace_deleted", _("Deleted the workspace")
    HANDED_OVER = "handed_over", _("Handed the workspace over")
    INVITED = "invited", _("Invited somebody")
    INVITED_AGAIN = "invited_again", _("Sent an invitation again")
    INVITATION_REVOKED = "invitation_revoked", _("Took an invitation back")
    MEMBER_JOINED = "member_joined", _("Joined")
    MEMBER_LEFT = "member_left", _("Left")
    MEMBER_REMOVED = "member_removed", _("Removed a member")
    ROLE_CHANGED = "role_changed", _("Changed a role")
    LIMIT_CHANGED = "limit_changed", _("Changed a spending limit")
    ORDERED = "ordered", _("Ordered a restoration")
    CANCELLED = "cancelled", _("Cancelled a restoration")
    VIDEO_DELETED = "video_deleted", _("Deleted a video")
    RESULT_DELETED = "result_deleted", _("Deleted a result")
    PURCHASE_BEGUN = "purchase_begun", _("Began a purchase")
    PURCHASED = "purchased", _("Bought credits")
    TOP_UP_CHANGED = "top_up_changed", _("Changed automatic top-up")


def record(
    *, workspace: Workspace, deed: Deed, subject: str = "", actor: User | None = None, **details: Any
) -> None:
    """Adds an entry in the transaction of the deed, so that neither is there without the other.

    Who asks, and from where, comes from the request; without one, and without `actor`, the site itself did it. A deed
    of somebody else, which this request only finds done, came from nowhere that is known.
    """
    assert connection.in_atomic_block, "the entry belongs into the transaction of the deed"
    now = scope.current()
    if actor is None and now.person_id is not None:
        actor = User.objects.filter(pk=now.person_id).first()
    if actor is not None and now.person_id not in (None, actor.pk):
        now = scope.NOBODY
    AuditEntry.objects.create(
        workspace=workspace,
        deed=deed,
        subject=subject[:300],
        details=details,
        actor=actor,
        actor_mail=actor.email if actor else "",
        address=now.address or None,
        user_agent=now.user_agent,
    )


def label(deed: str) -> str:
    """Returns a deed in words."""
    return str(Deed(deed).label) if deed in Deed.values else deed


def in_words(details: dict[str, Any]) -> str:
    """Returns an entry's details as a line: `role: member → admin`."""
    return ", ".join(f"{name.replace('_', ' ')}: {_value(value)}" for name, value in details.items())


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return " → ".join("–" if part is None else str(part) for part in value)
    return "–" if value is None else str(value)


def entries(
    workspace: Workspace,
    *,
    deed: str = "",
    who: str = "",
    since: date | None = None,
    until: date | None = None,
) -> AuditEntryQuerySet:
    """Returns the entries that fit, newest first. `who` is a part of a mail address."""
    found = AuditEntry.objects.for_workspace(workspace).order_by("-created_at", "-pk")
    if deed:
        found = found.filter(deed=deed)
    if who:
        found = found.filter(actor_mail__icontains=who)
    if since:
        found = found.filter(created_at__date__gte=since)
    if until:
        found = found.filter(created_at__date__lte=until)
    return found


def csv_lines(found: AuditEntryQuerySet) -> Iterator[str]:
    """Yields entries as lines of CSV."""
    yield csv_line(("time", "who", "deed", "subject", "details", "address", "browser"))
    for entry in found.iterator():
        yield csv_line(
            (
                entry.created_at.isoformat(timespec="seconds"),
                entry.actor_mail,
                entry.deed,
                entry.subject,
                json.dumps(entry.details, ensure_ascii=False) if entry.details else "",
                entry.address or "",
                entry.user_agent,
            )
        )
