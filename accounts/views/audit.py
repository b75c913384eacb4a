"""The audit log: a page with filters, and the same entries as a file."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from accounts import audit
from accounts.access import WorkspaceRequest, allowed
from accounts.forms import AuditForm
from accounts.permissions import Permission


@require_safe
@allowed(Permission.SEE_AUDIT)
def audit_log(request: WorkspaceRequest) -> HttpResponse:
    """Shows the entries that were asked for, newest first."""
    form = AuditForm(request.GET)
    page = Paginator(audit.entries(request.workspace, **form.filters), 50).get_page(request.GET.get("page"))
    rows = [(entry, audit.label(entry.deed), audit.in_words(entry.details)) for entry in page]
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {"form": form, "page": page, "rows": rows, "query": kept.urlencode()}
    return render(request, "accounts/audit_log.html", context)


@require_safe
@allowed(Permission.SEE_AUDIT)
def audit_log_csv(request: WorkspaceRequest) -> HttpResponse:
    """Sends the same entries as a file for spreadsheets."""
    found = audit.entries(request.workspace, **AuditForm(request.GET).filters)
    name = f"audit-{request.workspace.slug}-{timezone.now():%Y-%m-%d}.csv"
    return HttpResponse(
        audit.csv_lines(found),
        content_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
