"""What was deleted, and when: a list, and a receipt for each video."""

from __future__ import annotations

from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from accounts.access import WorkspaceRequest, workspace_member
from restorations import receipts
from restorations.models import Video


@require_safe
@workspace_member
def deletion_list(request: WorkspaceRequest) -> HttpResponse:
    """Shows the videos of which something was deleted."""
    page = Paginator(receipts.with_deletions(request.workspace), 50).get_page(request.GET.get("page"))
    return render(request, "restorations/deletion_list.html", {"page": page})


@require_safe
@workspace_member
def deletion_receipt(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Shows what was deleted of one video."""
    videos = Video.objects.for_workspace(request.workspace).select_related("deleted_by")
    video = get_object_or_404(videos, pk=video_id)
    return render(
        request, "restorations/deletion_receipt.html", {"video": video, "lines": receipts.lines(video)}
    )
