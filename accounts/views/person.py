"""Pages about the person rather than about a workspace."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from accounts import mail_preferences
from accounts.forms import PreferencesForm
from accounts.models import User


@require_http_methods(["GET", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    """Shows and saves which mails the person wants, the time zone and the language."""
    form = PreferencesForm(request.POST or None, instance=cast(User, request.user))
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Your preferences are saved."))
        return redirect("preferences")
    return render(request, "accounts/preferences.html", {"form": form})


# Mail programs post here by themselves, without a cookie; the signed token in the address is what permits it.
@csrf_exempt
@login_not_required
@require_http_methods(["GET", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Stops one kind of mail by one click. Opening the address alone changes nothing: programs look ahead."""
    found = mail_preferences.find(token)
    if found is None:
        raise Http404
    person_id, kind = found
    if request.method == "POST":
        mail_preferences.stop(person_id, kind)
    context = {"what": kind.in_words, "is_done": request.method == "POST"}
    return render(request, "accounts/unsubscribe.html", context)
