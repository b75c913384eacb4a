"""The list of restorations and the page of one: live status, compare, download, cancel, delete."""

from __future__ import annotations

import logging
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from accounts.access import WorkspaceRequest, allowed, workspace_editor, workspace_member
from accounts.permissions import Permission
from restorations import lifecycle, losses, objects, partial, watching
from restorations.models import Restoration
from restorations.pages import restoration_context
from restorations.views.videos import render_fragment

logger = logging.getLogger(__name__)


def _restoration(request: WorkspaceRequest, restoration_id: UUID) -> Restoration:
    mine = Restoration.objects.for_workspace(request.workspace).select_related("video", "workspace")
    return get_object_or_404(mine, pk=restoration_id)


@require_safe
@workspace_member
def restoration_list(request: WorkspaceRequest) -> HttpResponse:
    """Shows every restoration of the workspace, newest first."""
    mine = Restoration.objects.for_workspace(request.workspace).select_related("video", "workspace")
    watching.note_workspace(request.workspace.pk)
    page = Paginator(mine.order_by("-created_at"), 20).get_page(request.GET.get("page"))
    return render_fragment(request, "restorations/restoration_list.html", "list", {"page": page})


@require_safe
@workspace_member
def restoration_detail(request: WorkspaceRequest, restoration_id: UUID) -> HttpResponse:
    """Shows one restoration: live while it runs, the two videos when it is done."""
    restoration = _restoration(request, restoration_id)
    if restoration.is_active:
        watching.note_restoration(restoration.pk)
    context = restoration_context(restoration)
    return render_fragment(request, "restorations/restoration_detail.html", "status", context)


@require_POST
@workspace_editor
def restoration_cancel(request: WorkspaceRequest, restoration_id: UUID) -> HttpResponse:
    """Stops a restoration and gives back the share not done."""
    restoration = _restoration(request, restoration_id)
    # The fragment for htmx shows what became of it; a message would wait for the next page.
    if not lifecycle.cancel(restoration, actor=request.user) and not request.htmx:
        messages.info(request, _("It had ended already."))
    if not request.htmx:
        return redirect(restoration)
    context = restoration_context(_restoration(request, restoration_id))
    return render_fragment(request, "restorations/restoration_detail.html", "status", context)


@require_POST
@allowed(Permission.DELETE)
def restoration_delete(request: WorkspaceRequest, restoration_id: UUID) -> HttpResponse:
    """Deletes the result, or the finished part, now; the line in the list stays."""
    restoration = _restoration(request, restoration_id)
    if lifecycle.expire(restoration, actor=request.user):
        messages.success(request, _("The result is deleted."))
    elif restoration.has_partial:
        partial.forget(restoration)
        messages.success(request, _("The finished part is deleted."))
    return redirect("restoration-list", slug=request.workspace.slug)


@require_safe
@workspace_member
def restoration_download(request: WorkspaceRequest, restoration_id: UUID) -> HttpResponse:
    """Sends the browser to the result, or to the finished part, under a good file name."""
    restoration = _restoration(request, restoration_id)
    if restoration.is_downloadable:
        key, name = restoration.result_key, restoration.download_name
    elif restoration.has_partial:
        key, name = restoration.partial_key, restoration.partial_name
    else:
        raise Http404
    # Beyond this redirect the browser would show the storage's own error, or none.
    try:
        objects.confirm(key)
    except objects.ObjectMissing:
        logger.error("object missing restoration=%s key=%s", restoration.pk, key)
        if restoration.is_downloadable:
            losses.note([restoration])
        return render(request, "restorations/file_missing.html", {"restoration": restoration}, status=410)
    address = objects.address_to_read(key, seconds=objects.DOWNLOAD_SECONDS, download_name=name)
    return redirect(address)
