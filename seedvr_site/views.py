"""Pages that belong to no app: the front page and the health check."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.workspaces import personal_workspace
from restorations.quotes import price_examples


@require_safe
@login_not_required
def home(request: HttpRequest) -> HttpResponse:
    """Shows the front page; those signed in go on to their workspace."""
    if isinstance(request.user, User):
        return redirect(personal_workspace(request.user))
    context = {"price_examples": price_examples(), "starter_credits": settings.STARTER_CREDITS}
    return render(request, "front.html", context)


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
