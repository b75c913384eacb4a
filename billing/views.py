"""The workspace's credits."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import WorkspaceRequest, workspace_member
from billing.models import CreditEntry


@require_safe
@workspace_member
def credit_statement(request: WorkspaceRequest) -> HttpResponse:
    """Shows the balance and every movement, newest first."""
    entries = CreditEntry.objects.for_workspace(request.workspace).order_by("-created_at", "-pk")
    page = Paginator(entries, 50).get_page(request.GET.get("page"))
    return render(request, "billing/credit_statement.html", {"page": page})
