"""Imports from links: begin one, see how far they are, cancel one."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from accounts.access import WorkspaceRequest, workspace_editor, workspace_member
from accounts.rate_limits import rate_limited
from restorations.links import imports
from restorations.links.problems import LinkRefused
from restorations.models import LinkImport
from restorations.pages import home_context, import_context
from restorations.views.videos import render_fragment


@require_safe
@workspace_member
def import_list(request: WorkspaceRequest) -> HttpResponse:
    """Shows how far imports are; the page asks once a second while one is under way."""
    if not request.htmx:
        return redirect(request.workspace)
    return render_fragment(
        request, "restorations/workspace_home.html", "imports", import_context(request.workspace)
    )


@require_POST
@workspace_editor
@rate_limited("upload")
def import_create(request: WorkspaceRequest) -> HttpResponse:
    """Begins to fetch a file from a link."""
    link, problem = request.POST.get("link", ""), ""
    try:
        imports.begin(workspace=request.workspace, user=request.user, link=link)
    except LinkRefused as exc:
        problem = str(exc.problem.label)
    except imports.TooMany:
        problem = _("Enough imports are under way. Please wait until one of them has ended.")
    if not problem and not request.htmx:
        return redirect(request.workspace)
    context = import_context(request.workspace) if request.htmx else home_context(request.workspace)
    context |= {"import_problem": problem, "import_link": link if problem else ""}
    status = 422 if problem else 200
    return render_fragment(request, "restorations/workspace_home.html", "imports", context, status=status)


@require_POST
@workspace_editor
def import_cancel(request: WorkspaceRequest, import_id: UUID) -> HttpResponse:
    """Stops an import; what has come of it is deleted."""
    begun = get_object_or_404(LinkImport.objects.for_workspace(request.workspace), pk=import_id)
    # The fragment for htmx shows what became of it; a message would wait for the next page.
    if not imports.cancel(begun) and not request.htmx:
        messages.info(request, _("It had ended already."))
    if not request.htmx:
        return redirect(request.workspace)
    return render_fragment(
        request, "restorations/workspace_home.html", "imports", import_context(request.workspace)
    )
