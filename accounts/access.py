"""The only door to `request.workspace`: strangers get 404, members without the right get 403."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django_htmx.middleware import HtmxDetails

from accounts import scope
from accounts.models import Membership, User, Workspace
from accounts.permissions import Permission
from accounts.second_factor import has_second_factor


class WorkspaceRequest(HttpRequest):
    """A request inside a workspace, by one of its members."""

    user: User
    workspace: Workspace
    membership: Membership
    htmx: HtmxDetails


View = Callable[..., HttpResponse]


def membership_of(user: object, slug: str) -> Membership | None:
    """Returns the person's membership in the workspace with this slug, or None for everybody else."""
    if not isinstance(user, User) or user.is_closing:
        return None
    mine = Membership.objects.select_related("workspace").filter(user=user, workspace__slug=slug)
    with scope.person(user):
        return mine.filter(workspace__deleted_at=None).first()


def hurdle(membership: Membership, user: User) -> str:
    """Returns the template that tells a member what has to be done before the door opens, or nothing."""
    if membership.workspace.is_closing:
        return "accounts/workspace_closing.html"
    if lacks_second_factor(membership, user):
        return "accounts/second_factor_needed.html"
    return ""


def lacks_second_factor(membership: Membership, user: User) -> bool:
    """Returns whether the workspace asks for a second factor that this member has not got."""
    return membership.workspace.requires_second_factor and not has_second_factor(user)


def admitted(user: object, slug: str) -> Membership | None:
    """Returns the membership of somebody who may be inside now: the sockets' door."""
    membership = membership_of(user, slug)
    if membership is None or not isinstance(user, User) or hurdle(membership, user):
        return None
    return membership


def allowed(permission: Permission, *, before_hurdles: bool = False) -> Callable[[View], View]:
    """Lets members of the workspace in the address in whose role allows it.

    Behind a hurdle (the workspace is about to be deleted, a second factor is missing) a member sees what to do
    instead of the page; `before_hurdles` is for the pages that take a hurdle away.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapped(request: WorkspaceRequest, slug: str, **kwargs: Any) -> HttpResponse:
            membership = membership_of(request.user, slug)
            if membership is None:
                # The same answer as for a workspace that does not exist: its existence is nobody's business.
                raise Http404
            request.membership = membership
            request.workspace = membership.workspace
            scope.enter(membership.workspace)
            _remember(request)
            if not before_hurdles and (template := hurdle(membership, request.user)):
                return render(request, template, status=403)
            if not membership.may(permission):
                raise PermissionDenied(_refusal(permission))
            return view(request, **kwargs)

        wrapped.permission = permission  # type: ignore[attr-defined]
        return wrapped

    return decorate


def _remember(request: WorkspaceRequest) -> None:
    """Keeps which workspace was used last, when that changes: the site's first page leads there."""
    if request.method != "GET" or request.htmx or request.user.last_workspace_id == request.workspace.pk:
        return
    User.objects.filter(pk=request.user.pk).update(last_workspace=request.workspace)


def _refusal(permission: Permission) -> str:
    if permission in (Permission.RESTORE, Permission.DELETE):
        return _("Viewers can look at everything here, but not change it.")
    if permission is Permission.OWN:
        return _("Only the owner of this workspace can do this.")
    return _("Only the owner and the admins of this workspace can do this.")


#: The two doors that most pages have.
workspace_member = allowed(Permission.LOOK)
workspace_editor = allowed(Permission.RESTORE)
