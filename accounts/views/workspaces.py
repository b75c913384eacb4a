"""Make a workspace, change it, leave it, hand it over, delete it."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from accounts import members, workspaces
from accounts.access import WorkspaceRequest, allowed
from accounts.forms import DeleteForm, HandOverForm, WorkspaceForm, WorkspaceSettingsForm
from accounts.models import User
from accounts.permissions import Permission


@require_http_methods(["GET", "POST"])
def workspace_create(request: HttpRequest) -> HttpResponse:
    """Makes a workspace to share, and goes there."""
    form = WorkspaceForm(request.POST or None)
    if form.is_valid():
        try:
            made = workspaces.create(name=form.cleaned_data["name"], owner=cast(User, request.user))
        except workspaces.Refused as exc:
            form.add_error(None, str(exc))
        else:
            messages.success(
                request, _("%(name)s is ready. Invite the people you work with.") % {"name": made}
            )
            return redirect("member-list", slug=made.slug)
    status = 422 if form.is_bound else 200
    return render(request, "accounts/workspace_create.html", {"form": form}, status=status)


@require_http_methods(["GET", "POST"])
@allowed(Permission.CHANGE_SETTINGS)
def workspace_settings(request: WorkspaceRequest) -> HttpResponse:
    """Shows and saves name and rules."""
    sent = request.POST if request.method == "POST" else None
    form = WorkspaceSettingsForm(sent, instance=request.workspace, user=request.user)
    if form.is_valid():
        workspaces.change(request.workspace, **form.cleaned_data)
        messages.success(request, _("Your settings are saved."))
        return redirect("workspace-settings", slug=request.workspace.slug)
    return _settings_page(request, form=form)


def _settings_page(request: WorkspaceRequest, **forms: object) -> HttpResponse:
    # A form that was refused has changed the row in memory; what the page's frame shows is what is stored.
    is_refused = bool(forms) and request.method == "POST"
    if is_refused:
        request.workspace.refresh_from_db()
    context = {
        "form": WorkspaceSettingsForm(instance=request.workspace, user=request.user),
        "hand_over_form": HandOverForm(workspace=request.workspace),
        "delete_form": DeleteForm(workspace=request.workspace),
        "grace_days": workspaces.GRACE.days,
    }
    status = 422 if is_refused else 200
    return render(request, "accounts/workspace_settings.html", context | forms, status=status)


@require_POST
@allowed(Permission.LOOK, before_hurdles=True)
def workspace_leave(request: WorkspaceRequest) -> HttpResponse:
    """Leaves the workspace."""
    try:
        members.leave(request.membership)
    except members.Refused as exc:
        messages.error(request, str(exc))
        return redirect("member-list", slug=request.workspace.slug)
    messages.success(request, _("You have left %(name)s.") % {"name": request.workspace.name})
    return redirect("home")


@require_POST
@allowed(Permission.OWN)
def workspace_hand_over(request: WorkspaceRequest) -> HttpResponse:
    """Makes another member the owner."""
    form = HandOverForm(request.POST, workspace=request.workspace)
    if form.is_valid():
        new = form.cleaned_data["member"]
        try:
            workspaces.hand_over(request.workspace, to=new)
        except workspaces.Refused as exc:
            form.add_error(None, str(exc))
        else:
            messages.success(
                request, _("%(email)s owns this workspace now; you are an admin.") % {"email": new.user.email}
            )
            return redirect("member-list", slug=request.workspace.slug)
    return _settings_page(request, hand_over_form=form)


@require_POST
@allowed(Permission.OWN)
def workspace_delete(request: WorkspaceRequest) -> HttpResponse:
    """Orders the deletion, which can be taken back for a while."""
    form = DeleteForm(request.POST, workspace=request.workspace)
    if request.workspace.is_personal:
        form.add_error(None, _("Your personal workspace goes with your account."))
    if not form.is_valid():
        return _settings_page(request, delete_form=form)
    workspaces.schedule_deletion(request.workspace)
    day = date_format(timezone.localdate() + workspaces.GRACE, "DATE_FORMAT")
    when = {"name": request.workspace.name, "day": day}
    messages.success(
        request,
        _("%(name)s is closed and will be deleted on %(day)s. Until then you can open it and undo that.")
        % when,
    )
    return redirect("home")


@require_POST
@allowed(Permission.OWN, before_hurdles=True)
def workspace_undo_deletion(request: WorkspaceRequest) -> HttpResponse:
    """Opens the workspace again."""
    workspaces.undo_deletion(request.workspace)
    messages.success(request, _("The workspace is open again."))
    return redirect(request.workspace)
