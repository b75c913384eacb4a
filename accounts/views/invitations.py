"""Invitations: sent by admins, accepted by whoever has the link."""

from __future__ import annotations

from typing import Final, cast
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts import invitations, scope
from accounts.access import WorkspaceRequest, allowed
from accounts.forms import InvitationForm
from accounts.models import Invitation, User
from accounts.permissions import Permission
from accounts.rate_limits import rate_limited
from accounts.views.members import members_page

#: Where a browser keeps that its person said yes, until they have signed in or signed up.
SAID_YES: Final = "invitation"


@require_POST
@allowed(Permission.MANAGE_MEMBERS)
@rate_limited("invite")
def invitation_create(request: WorkspaceRequest) -> HttpResponse:
    """Invites somebody by mail. The answer is the same whether the address has an account or not."""
    form = InvitationForm(request.POST)
    if form.is_valid():
        try:
            invitation = invitations.invite(workspace=request.workspace, by=request.user, **form.cleaned_data)
        except invitations.Refused as exc:
            form.add_error("email", str(exc))
        else:
            messages.success(request, _("%(email)s is invited.") % {"email": invitation.email})
            return redirect("member-list", slug=request.workspace.slug)
    return members_page(request, invitation_form=form)


def _invitation(request: WorkspaceRequest, invitation_id: UUID) -> Invitation:
    mine = Invitation.objects.for_workspace(request.workspace).select_related("workspace")
    return get_object_or_404(mine, pk=invitation_id)


@require_POST
@allowed(Permission.MANAGE_MEMBERS)
@rate_limited("invite")
def invitation_send_again(request: WorkspaceRequest, invitation_id: UUID) -> HttpResponse:
    """Mails the link once more."""
    invitation = _invitation(request, invitation_id)
    try:
        invitations.send_again(invitation)
    except invitations.Refused as exc:
        messages.error(request, str(exc))
    else:
        messages.success(request, _("The mail to %(email)s is on its way.") % {"email": invitation.email})
    return redirect("member-list", slug=request.workspace.slug)


@require_POST
@allowed(Permission.MANAGE_MEMBERS)
def invitation_revoke(request: WorkspaceRequest, invitation_id: UUID) -> HttpResponse:
    """Takes an invitation back."""
    invitation = _invitation(request, invitation_id)
    invitations.revoke(invitation)
    messages.success(request, _("The invitation of %(email)s is taken back.") % {"email": invitation.email})
    return redirect("member-list", slug=request.workspace.slug)


# --- The other side -----------------------------------------------------------------------------------------


@require_safe
@never_cache
@login_not_required
@scope.sees_everything
def invitation_detail(request: HttpRequest, token: str) -> HttpResponse:
    """Shows who invites to what. Who said yes here before signing in is taken in at once."""
    invitation = invitations.find(token)
    if invitation is None:
        return render(request, "accounts/invitation_over.html", status=404)
    if isinstance(request.user, User) and request.session.get(SAID_YES) == token:
        return _join(request, invitation)
    return render(request, "accounts/invitation_detail.html", {"invitation": invitation, "token": token})


@require_POST
@login_not_required
@scope.sees_everything
def invitation_accept(request: HttpRequest, token: str) -> HttpResponse:
    """Joins the workspace; somebody who has not signed in does that first, or signs up."""
    invitation = invitations.find(token)
    if invitation is None:
        return render(request, "accounts/invitation_over.html", status=404)
    if isinstance(request.user, User):
        return _join(request, invitation)
    request.session[SAID_YES] = token
    way = "account_signup" if "signup" in request.POST else "account_login"
    back = urlencode({"next": reverse("invitation-detail", args=[token])})
    return redirect(f"{reverse(way)}?{back}")


def _join(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    request.session.pop(SAID_YES, None)
    workspace = invitation.workspace
    if invitations.accept(invitation, user=cast(User, request.user)):
        messages.success(request, _("Welcome to %(name)s.") % {"name": workspace.name})
    return redirect(workspace)
