"""Settings that a workspace keeps under names: save those of a form, list, delete."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from accounts.access import WorkspaceRequest, workspace_editor, workspace_member
from restorations.forms import RestorationForm
from restorations.models import SavedSettings, Video
from restorations.pages import video_context
from restorations.views.videos import go_to, render_fragment, with_settings


@require_POST
@workspace_editor
def saved_settings_create(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Saves the settings of a video's form under a name, and shows the form again as it was."""
    videos = Video.objects.for_workspace(request.workspace).present().select_related("workspace")
    video = get_object_or_404(videos, pk=video_id)
    form = RestorationForm(request.POST, video=video)
    if form.is_valid() and _save(request, form):
        messages.success(
            request, _("The settings are saved as “%(name)s”.") % {"name": form.cleaned_data["name"]}
        )
        return go_to(request, with_settings(video, form))
    context = video_context(video, form) | {"restorations": []}
    return render_fragment(request, "restorations/video_detail.html", "quote", context, status=422)


def _save(request: WorkspaceRequest, form: RestorationForm) -> bool:
    name, options = form.cleaned_data["name"], form.options
    if not name:
        form.add_error("name", _("Please type a name, such as “Old family films”."))
        return False
    try:
        with transaction.atomic():
            SavedSettings.objects.create(
                workspace=request.workspace,
                created_by=request.user,
                name=name,
                preset=options.preset,
                model=options.model,
                strength=options.strength,
                color_fix=options.color_fix,
                output=options.output,
            )
    except IntegrityError:
        form.add_error(
            "name", _("There are settings of this name already. Choose another name, or delete those first.")
        )
        return False
    return True


@require_safe
@workspace_member
def saved_settings_list(request: WorkspaceRequest) -> HttpResponse:
    """Shows the settings that the workspace keeps."""
    saved = SavedSettings.objects.for_workspace(request.workspace).select_related("created_by")
    return render(request, "restorations/saved_settings_list.html", {"saved_settings": saved})


@require_POST
@workspace_editor
def saved_settings_delete(request: WorkspaceRequest, saved_id: UUID) -> HttpResponse:
    """Deletes saved settings; restorations made with them keep their own values."""
    saved = get_object_or_404(SavedSettings.objects.for_workspace(request.workspace), pk=saved_id)
    saved.delete()
    messages.success(request, _("The settings “%(name)s” are deleted.") % {"name": saved.name})
    return redirect("saved-settings-list", slug=request.workspace.slug)
