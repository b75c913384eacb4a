"""The person's own data, and the end of the account."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import closing, scope
from accounts.models import DataExport, User, Workspace
from accounts.rate_limits import rate_limited
from billing.ledger import balance
from restorations import data_export as exports
from restorations import objects
from restorations.models import Restoration


@require_safe
def account_data(request: HttpRequest) -> HttpResponse:
    """Shows the archives that can be fetched, and the way to delete the account."""
    found = DataExport.objects.of(cast(User, request.user))
    context = {"exports": found, "days": exports.LIFETIME.days}
    return render(request, "accounts/account_data.html", context)


@require_POST
@reauthentication_required  # type: ignore[untyped-decorator]
@rate_limited("export")
def data_export(request: HttpRequest) -> HttpResponse:
    """Asks for an archive."""
    exports.ask(cast(User, request.user))
    messages.success(request, _("We collect your data, and write to you when it can be fetched."))
    return redirect("account-data")


@require_safe
@reauthentication_required  # type: ignore[untyped-decorator]
def data_export_download(request: HttpRequest, export_id: UUID) -> HttpResponse:
    """Sends the browser to the archive. To anybody but its owner it does not exist."""
    export = get_object_or_404(DataExport.objects.of(cast(User, request.user)), pk=export_id)
    if not export.is_ready:
        raise Http404
    # While the storage is away, a page says so; beyond this redirect the browser would show its own error.
    try:
        objects.confirm(export.storage_key)
    except objects.ObjectMissing:
        raise Http404 from None
    return redirect(exports.address_of(export))


@require_http_methods(["GET", "POST"])
def account_delete(request: HttpRequest) -> HttpResponse:
    """Says what deleting the account does, and closes it; once it is closed, shows the way back."""
    if cast(User, request.user).is_closing:
        return render(request, "accounts/account_closing.html")
    response: HttpResponse = _delete(request)
    return response


@reauthentication_required  # type: ignore[untyped-decorator]
def _delete(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    if request.method == "POST":
        try:
            closing.close(user, session_key=request.session.session_key)
        except closing.Refused as exc:
            messages.error(request, str(exc))
        return redirect("account-delete")
    context = {
        "in_the_way": closing.in_the_way(user),
        "going": [_what_goes(workspace) for workspace in closing.owned(user)],
        "grace_days": closing.GRACE.days,
    }
    return render(request, "accounts/account_delete.html", context)


def _what_goes(workspace: Workspace) -> dict[str, Any]:
    with scope.inside(workspace):
        running = Restoration.objects.for_workspace(workspace).active().count()
        return {"name": workspace.name, "credits": balance(workspace), "num_running": running}


@require_POST
def account_keep(request: HttpRequest) -> HttpResponse:
    """Takes the closing of the account back."""
    closing.keep(cast(User, request.user))
    messages.success(request, _("Your account is yours again, as it was."))
    return redirect("home")
