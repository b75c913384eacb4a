"""The members' page: who is here, as what, and how much they may spend."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from accounts import members, permissions
from accounts.access import WorkspaceRequest, allowed
from accounts.forms import InvitationForm, MemberForm
from accounts.models import Invitation, Membership
from accounts.permissions import Permission, Role


@require_safe
@allowed(Permission.LOOK)
def member_list(request: WorkspaceRequest) -> HttpResponse:
    """Shows who is here; to those who manage members, with forms and open invitations."""
    return members_page(request)


def members_page(
    request: WorkspaceRequest,
    *,
    invitation_form: InvitationForm | None = None,
    member_form: MemberForm | None = None,
) -> HttpResponse:
    """Renders the page, with a form that was refused in its place."""
    rank = {role.value: place for place, role in enumerate(Role)}
    here = Membership.objects.for_workspace(request.workspace).select_related("user", "workspace")
    rows = []
    for member in sorted(here, key=lambda member: (rank[member.role], member.user.email)):
        refused = member_form if member_form and member_form.member.pk == member.pk else None
        rows.append((member, refused or MemberForm(member=member)))
    context = {
        "rows": rows,
        "invitation_form": invitation_form or InvitationForm(),
        "invitations": (
            Invitation.objects.for_workspace(request.workspace)
            .filter(accepted_at=None, revoked_at=None)
            .order_by("email")
        ),
        "roles": Role,
        "table": permissions.table(),
    }
    status = 422 if invitation_form or member_form else 200
    return render(request, "accounts/member_list.html", context, status=status)


def _member(request: WorkspaceRequest, member_id: int) -> Membership:
    here = Membership.objects.for_workspace(request.workspace).select_related("user", "workspace")
    return get_object_or_404(here, pk=member_id)


@require_POST
@allowed(Permission.MANAGE_MEMBERS)
def member_update(request: WorkspaceRequest, member_id: int) -> HttpResponse:
    """Saves a member's role and limit."""
    member = _member(request, member_id)
    form = MemberForm(request.POST, member=member)
    if not form.is_valid():
        return members_page(request, member_form=form)
    members.change(
        member, role=form.cleaned_data.get("role", member.role), limit=form.cleaned_data["monthly_limit"]
    )
    messages.success(request, _("Saved: %(email)s") % {"email": member.user.email})
    return redirect("member-list", slug=request.workspace.slug)


@require_POST
@allowed(Permission.MANAGE_MEMBERS)
def member_remove(request: WorkspaceRequest, member_id: int) -> HttpResponse:
    """Takes a member out of the workspace."""
    member = _member(request, member_id)
    try:
        members.remove(member)
    except members.Refused as exc:
        messages.error(request, str(exc))
    else:
        messages.success(request, _("%(email)s is not a member any more.") % {"email": member.user.email})
    if member.user_id == request.user.pk:
        return redirect("home")
    return redirect("member-list", slug=request.workspace.slug)
