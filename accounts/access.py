"""The only door to `request.workspace`: strangers get 404, members without the right get 403."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django_htmx.middleware import HtmxDetails

from accounts.models import Membership, User, Workspace


class WorkspaceRequest(HttpRequest):
    """A request inside a workspace, by one of its members."""

    user: User
    workspace: Workspace
    membership: Membership
    htmx: HtmxDetails


View = Callable[..., HttpResponse]


def membership_of(user: object, slug: str) -> Membership | None:
    """Returns the person's membership in the workspace with this slug, or None for everybody else."""
    if not isinstance(user, User):
        return None
    return Membership.objects.select_related("workspace").filter(user=user, workspace__slug=slug).first()


def workspace_member(view: View) -> View:
    """Lets members of the workspace in the address in, viewers included."""

    @functools.wraps(view)
    def wrapped(request: WorkspaceRequest, slug: str, **kwargs: Any) -> HttpResponse:
        membership = membership_of(request.user, slug)
        if membership is None:
            # The same answer as for a workspace that does not exist: its existence is nobody's business.
            raise Http404
        request.membership = membership
        request.workspace = membership.workspace
        return view(request, **kwargs)

    return wrapped


def workspace_editor(view: View) -> View:
    """Lets those in who may upload, spend credits and delete."""

    @functools.wraps(view)
    def checked(request: WorkspaceRequest, **kwargs: Any) -> HttpResponse:
        if not request.membership.can_edit:
            raise PermissionDenied(_("Viewers can look at everything here, but not change it."))
        return view(request, **kwargs)

    return workspace_member(checked)
