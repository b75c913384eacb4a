"""Collect everything that belongs to a person into one archive, for the person alone.

Whoever runs a workspace gets all of it; a member or viewer gets what they did there themselves: the rest belongs to
the others. Videos and results are links, which work as long as the archive is kept.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.core.cache import cache
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import Model, QuerySet
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts import mails, scope
from accounts.access import lacks_second_factor
from accounts.localization import as_seen_by
from accounts.models import AuditEntry, DataExport, Membership, User, Workspace
from accounts.permissions import Permission
from billing.models import CreditEntry, Purchase
from restorations import objects
from restorations.doorbells import Doorbell, ring
from restorations.models import Restoration, Video

LIFETIME: Final = timedelta(days=3)
#: How long the address works to which the download leads.
DOWNLOAD_SECONDS: Final = 60
#: One worker collects at a time; should it be killed, another begins after this many seconds.
_ALONE_SECONDS: Final = 300
#: Where things lie in storage, and what opens doors, is nobody's data.
_LEFT_OUT: Final = {
    *("workspace_id", "storage_key", "poster_key", "proxy_key", "result_key", "manifest_key"),
    *("stripe_session_id", "stripe_payment_intent", "key"),
}


@transaction.atomic
def ask(user: User) -> DataExport:
    """Begins an archive, or returns the one that is being made already."""
    User.objects.select_for_update().get(pk=user.pk)
    pending = DataExport.objects.of(user).filter(ready_at=None).first()
    if pending is not None:
        return pending
    export = DataExport.objects.create(user=user)
    ring(Doorbell.BUILD_EXPORT, export_id=export.pk)
    return export


def build(export_id: UUID | str) -> None:
    """Makes the archive and mails where it is. Safe to repeat: what was done already stays."""
    export = DataExport.objects.unfinished().select_related("user").filter(pk=export_id).first()
    if export is None or not cache.add(f"data-export:{export.pk}", 1, timeout=_ALONE_SECONDS):
        return
    try:
        if not export.is_ready:
            _collect(export)
        _mail(export)
    finally:
        cache.delete(f"data-export:{export.pk}")


def address_of(export: DataExport) -> str:
    """Returns a short-lived address of the archive, for its owner's browser."""
    name = f"{settings.PRODUCT_NAME.lower()}-{export.created_at:%Y-%m-%d}.zip"
    return objects.address_to_read(export.storage_key, seconds=DOWNLOAD_SECONDS, download_name=name)


def delete_due() -> None:
    """Deletes archives whose time is over."""
    for export in DataExport.objects.filter(expires_at__lt=timezone.now(), deleted_at=None):
        _delete(export)


def delete_of(*, user: User, **_signal: Any) -> None:
    """Deletes a person's archives with the account, as soon as the transaction is committed."""
    exports = DataExport.objects.filter(user=user, deleted_at=None)
    # The sweep finds them, should storage be away now.
    exports.update(expires_at=timezone.now(), mailed_at=timezone.now())
    ring(Doorbell.RETENTION)


def _delete(export: DataExport) -> None:
    if export.storage_key:
        objects.delete([export.storage_key])
    DataExport.objects.filter(pk=export.pk).update(deleted_at=timezone.now(), storage_key="")


def keys_in_use(keys: Iterable[str]) -> set[str]:
    """Returns which of these objects are archives that are kept."""
    return set(
        DataExport.objects.filter(storage_key__in=list(keys), deleted_at=None).values_list(
            "storage_key", flat=True
        )
    )


# --- Collecting ---------------------------------------------------------------------------------------------


def _collect(export: DataExport) -> None:
    key = f"people/{export.user_id}/exports/{export.pk}.zip"
    # The key first: an archive that is stored and then forgotten would be nobody's.
    DataExport.objects.filter(pk=export.pk).update(storage_key=key)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, scope.person(export.user):
            _write(archive, export.user)
        size = path.stat().st_size
        objects.save_file(key, path)
    now = timezone.now()
    values = {"size_bytes": size, "ready_at": now, "expires_at": now + LIFETIME, "storage_key": key}
    DataExport.objects.filter(pk=export.pk).update(**values)
    for name, value in values.items():
        setattr(export, name, value)


def _write(archive: zipfile.ZipFile, user: User) -> None:
    context = {"user": user, "product_name": settings.PRODUCT_NAME, "days": LIFETIME.days}
    with as_seen_by(user):
        archive.writestr("README.txt", render_to_string("accounts/export_readme.txt", context))
    archive.writestr("profile.json", _json(_profile(user)))
    members = list(Membership.objects.filter(user=user).select_related("workspace"))
    _write_rows(archive, "memberships.json", map(_membership, members))
    for member in members:
        if lacks_second_factor(member, user):
            continue  # The archive is no way round the door.
        with scope.inside(member.workspace):
            _write_workspace(archive, member)


def _write_workspace(archive: zipfile.ZipFile, member: Membership) -> None:
    workspace, folder = member.workspace, f"workspaces/{member.workspace.slug}"
    everything = member.may(Permission.SEE_AUDIT)

    def rows(model: Any, own: str) -> Any:
        found = model.objects.for_workspace(workspace).order_by("created_at")
        return found if everything else found.filter(**{own: member.user})

    archive.writestr(f"{folder}/workspace.json", _json(_workspace(workspace)))
    videos = rows(Video, "created_by").select_related("workspace")
    _write_rows(archive, f"{folder}/videos.json", map(_video, videos.iterator()))
    restorations = rows(Restoration, "created_by").select_related("workspace", "video")
    _write_rows(archive, f"{folder}/restorations.json", map(_restoration, restorations.iterator()))
    for name, model, own in (
        ("ledger", CreditEntry, "spender"),
        ("purchases", Purchase, "created_by"),
        ("audit", AuditEntry, "actor"),
    ):
        _write_rows(archive, f"{folder}/{name}.json", map(_row, rows(model, own).iterator()))


def _write_rows(archive: zipfile.ZipFile, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON list row by row: a workspace may have very many."""
    with archive.open(name, "w") as file:
        lead = b"[\n"
        for row in rows:
            file.write(lead + _json(row).encode())
            lead = b",\n"
        file.write(b"[]\n" if lead == b"[\n" else b"\n]\n")


def _json(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False, indent=1)


def _row(row: Model) -> dict[str, Any]:
    """Returns a row's columns, so that one that is added later is not forgotten."""
    columns = (field.attname for field in row._meta.concrete_fields)
    return {name: getattr(row, name) for name in columns if name not in _LEFT_OUT}


def _profile(user: User) -> dict[str, Any]:
    def listed(found: QuerySet[Any], *names: str) -> list[dict[str, Any]]:
        return list(found.filter(user=user).values(*names))

    names = ("email", "first_name", "last_name", "date_joined", "last_login", "time_zone", "language")
    switches = ("mail_on_success", "mail_on_failure", "mail_on_expiry")
    return {
        **{name: getattr(user, name) for name in (*names, *switches)},
        "mail_addresses": listed(EmailAddress.objects.all(), "email", "verified", "primary"),
        "other_sites": listed(SocialAccount.objects.all(), "provider", "uid", "date_joined", "last_login"),
        "second_factors": listed(Authenticator.objects.all(), "type", "created_at", "last_used_at"),
        "sessions": listed(UserSession.objects.all(), "ip", "user_agent", "created_at", "last_seen_at"),
    }


def _membership(member: Membership) -> dict[str, Any]:
    return {
        "workspace": member.workspace.slug,
        "name": member.workspace.name,
        "role": member.role,
        "since": member.created_at,
        "credits_a_month": member.monthly_limit,
    }


def _workspace(workspace: Workspace) -> dict[str, Any]:
    names = ("name", "slug", "is_personal", "retention_hours", "requires_second_factor", "created_at")
    return {name: getattr(workspace, name) for name in names}


def _video(video: Video) -> dict[str, Any]:
    media = _link(video.storage_key) if video.storage_key and not video.deleted_at else ""
    return {**_row(video), "page": f"{settings.SITE_URL}{video.get_absolute_url()}", "media": media}


def _restoration(restoration: Restoration) -> dict[str, Any]:
    media = _link(restoration.result_key) if restoration.is_downloadable else ""
    page = f"{settings.SITE_URL}{restoration.get_absolute_url()}"
    return {**_row(restoration), "video": restoration.video.file_name, "page": page, "media": media}


def _link(key: str) -> str:
    address = objects.address_to_read(key, seconds=int(LIFETIME.total_seconds()))
    return f"{settings.SITE_URL}{address}" if address.startswith("/") else address


# --- Mail ---------------------------------------------------------------------------------------------------


def _mail(export: DataExport) -> None:
    """Mails where the archive is, once; the claim is given back when the mail server refuses."""
    if not DataExport.objects.unfinished().filter(pk=export.pk).update(mailed_at=timezone.now()):
        return
    link = f"{settings.SITE_URL}{reverse('account-data')}"
    context = {"link": link, "export": export}
    with _claim_given_back(export):
        mails.send(export.user, _("Your data is ready"), "accounts/mail/export_ready.txt", context)


@contextmanager
def _claim_given_back(export: DataExport) -> Iterator[None]:
    try:
        yield
    except OSError:  # smtplib's exceptions are OSErrors too
        DataExport.objects.filter(pk=export.pk).update(mailed_at=None)
        raise
