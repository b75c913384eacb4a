"""The workspace's page, and the page of one video with the form that restores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST, require_safe

from accounts.access import WorkspaceRequest, allowed, workspace_editor, workspace_member
from accounts.permissions import Permission
from accounts.rate_limits import rate_limited
from billing.ledger import InsufficientCredits, balance
from billing.limits import LimitReached
from billing.offers import PriceChanged
from restorations import retention, submission, uploads, watching
from restorations.forms import MORE_SETTINGS, RestorationForm, SingleUploadForm
from restorations.models import Restoration, SavedSettings, Video
from restorations.options import Options
from restorations.pages import home_context, video_context


def render_fragment(
    request: WorkspaceRequest, template: str, fragment: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    """Renders a page, or for htmx one fragment of it; caches must know that one address has two bodies."""
    if request.htmx and not request.htmx.history_restore_request:
        template = f"{template}#{fragment}"
    response = render(request, template, context, status=status)
    patch_vary_headers(response, ["HX-Request"])
    return response


@require_safe
@workspace_member
def workspace_home(request: WorkspaceRequest) -> HttpResponse:
    """Shows where to drop a video, and what was uploaded and restored last."""
    watching.note_workspace(request.workspace.pk)
    context = home_context(request.workspace)
    return render_fragment(request, "restorations/workspace_home.html", "library", context)


@require_POST
@workspace_editor
@rate_limited("upload")
def video_create(request: WorkspaceRequest) -> HttpResponse:
    """Takes a video in one request, from browsers without JavaScript."""
    form = SingleUploadForm(request.POST, request.FILES)
    try:
        if not form.is_valid():
            raise uploads.UploadRefused(form.errors["file"][0])
        file = form.cleaned_data["file"]
        video = uploads.receive(
            workspace=request.workspace,
            user=request.user,
            file_name=file.name,
            size_bytes=file.size,
            content=file,
        )
    except uploads.UploadRefused as exc:
        messages.error(request, str(exc))
        return redirect(request.workspace)
    return redirect("video-detail", slug=request.workspace.slug, video_id=video.pk)


def _video(request: WorkspaceRequest, video_id: UUID) -> Video:
    videos = Video.objects.for_workspace(request.workspace).present().select_related("workspace")
    return get_object_or_404(videos, pk=video_id)


@require_safe
@workspace_member
def video_detail(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Shows a video, what is in it, and the form that restores it."""
    video = _video(request, video_id)
    runs = list(video.restorations.select_related("video", "workspace").order_by("-created_at")[:20])
    form = RestorationForm(given, video=video) if (given := _given_settings(request)) else None
    context = video_context(video, form)
    context |= {"restorations": runs, "is_running": any(run.is_active for run in runs)}
    fragment = "runs" if "runs" in request.GET else "video"
    return render_fragment(request, "restorations/video_detail.html", fragment, context)


def _given_settings(request: WorkspaceRequest) -> Mapping[str, Any] | None:
    """Returns saved settings that were asked for, or those of the address, such as after buying credits."""
    if name := request.GET.get("saved"):
        saved = SavedSettings.objects.for_workspace(request.workspace)
        return Options.of(get_object_or_404(saved, name=name)).to_form()
    return request.GET if "preset" in request.GET else None


@require_safe
@workspace_member
def video_quote(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Shows size, price and time for what is chosen at the moment."""
    video = _video(request, video_id)
    context = video_context(video, RestorationForm(request.GET, video=video))
    return render_fragment(request, "restorations/video_detail.html", "quote", context)


@require_POST
@workspace_editor
@rate_limited("submit")
def video_restore(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Orders a restoration: charges the price and starts it."""
    return _order(request, video_id, is_preview=False)


@require_POST
@workspace_editor
@rate_limited("submit")
def video_preview(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Orders a preview: a few seconds at the same settings."""
    return _order(request, video_id, is_preview=True)


def _order(request: WorkspaceRequest, video_id: UUID, *, is_preview: bool) -> HttpResponse:
    """Orders what the form says and goes to its page, or shows the form again with the reason."""
    video = _video(request, video_id)
    form = RestorationForm(request.POST, video=video)
    if form.is_valid():
        try:
            restoration = submission.submit(
                video=video, user=request.user, options=form.options, **_terms(form, is_preview=is_preview)
            )
        except InsufficientCredits as exc:
            need = ngettext(
                "You need %(n)s more credit for this.", "You need %(n)s more credits for this.", exc.missing
            )
            form.add_error(None, need % {"n": exc.missing})
        except LimitReached as exc:
            form.add_error(None, exc.spending.sentence)
        except PriceChanged:
            form.add_error(None, _("This price has changed. Please look at the new one before you start."))
        except submission.AlreadyRestored as exc:
            messages.info(request, _already_there(exc.restoration))
            return go_to(request, exc.restoration.get_absolute_url())
        except submission.NotRestorable as exc:
            form.add_error(None, str(exc))
        else:
            return go_to(request, restoration.get_absolute_url())
    context = video_context(video, form) | {"restorations": []}
    return render_fragment(request, "restorations/video_detail.html", "quote", context, status=422)


def _terms(form: RestorationForm, *, is_preview: bool) -> dict[str, Any]:
    """Returns what is ordered, and what its quote was."""
    chosen = form.cleaned_data
    if not is_preview:
        return {"offer_id": chosen["offer_id"], "preview_credits": chosen["preview_credits"] or 0}
    # No frames at all: the order refuses a preview of a video that is too short for one.
    return {"offer_id": chosen["preview_offer_id"], "frames": form.preview_frames or (0, 0)}


def _already_there(restoration: Restoration) -> str:
    if restoration.is_active:
        return _("This is being restored already. Nothing was charged a second time.")
    return _("You already have this result. Nothing was charged.")


@require_POST
@workspace_editor
def video_buy(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Goes to buy what is missing, with the way back to the form as it is now."""
    video = _video(request, video_id)
    form = RestorationForm(request.POST, video=video)
    offer = video_context(video, form)["quote"]
    missing = max(0, offer.credits - balance(request.workspace)) if offer else 0
    way = urlencode({"missing": missing, "next": with_settings(video, form)})
    return go_to(request, f"{reverse('credit-buy', args=[request.workspace.slug])}?{way}")


def with_settings(video: Video, form: RestorationForm) -> str:
    """Returns the address of a video's page with the form as it was sent."""
    kept = {
        name: form.data[name]
        for name in ("preset", *MORE_SETTINGS, "preview_start")
        if form.data.get(name) not in (None, "")
    }
    return f"{video.get_absolute_url()}?{urlencode(kept)}"


def go_to(request: WorkspaceRequest, page: str) -> HttpResponse:
    """Sends a browser, with htmx or without, to another page."""
    if request.htmx:
        return HttpResponse(headers={"HX-Redirect": page})
    return redirect(page)


@require_POST
@allowed(Permission.DELETE)
def video_delete(request: WorkspaceRequest, video_id: UUID) -> HttpResponse:
    """Deletes a source now; results made from it stay until their own time."""
    video = _video(request, video_id)
    try:
        retention.delete_video(video, actor=request.user)
    except retention.StillInUse as exc:
        messages.error(request, str(exc))
        return redirect(video)
    messages.success(request, _("%(name)s is deleted.") % {"name": video.file_name})
    return redirect(request.workspace)
