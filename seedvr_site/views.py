"""Pages that belong to no app: the front page and the health check."""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from accounts import invitations
from accounts.models import Invitation, User
from accounts.workspaces import landing
from restorations.quotes import price_examples

#: Which invitation a browser's person was led to.
SEEN: Final = "seen_invitation"


@require_safe
@login_not_required
def home(request: HttpRequest) -> HttpResponse:
    """Shows the front page; those signed in go on to the workspace that they used last."""
    if isinstance(request.user, User):
        if invitation := _not_yet_seen(request, request.user):
            return redirect("invitation-detail", token=invitations.token_of(invitation))
        return redirect(landing(request.user))
    context = {"price_examples": price_examples(), "starter_credits": settings.STARTER_CREDITS}
    return render(request, "front.html", context)


def _not_yet_seen(request: HttpRequest, user: User) -> Invitation | None:
    """Returns what the person is invited to, once a session: they may have signed up without the link."""
    invitation = invitations.waiting_for(user)
    if invitation is None or request.session.get(SEEN) == str(invitation.pk):
        return None
    request.session[SEEN] = str(invitation.pk)
    return invitation


@require_safe
@login_not_required
def pricing(request: HttpRequest) -> HttpResponse:
    """Shows the price table in force as examples that people understand."""
    return render(request, "billing/pricing.html", {"price_examples": price_examples()})


@require_safe
@login_not_required
def health(request: HttpRequest) -> HttpResponse:
    """Answers load balancers and the supervisor: the process serves requests."""
    return HttpResponse("ok", content_type="text/plain")
