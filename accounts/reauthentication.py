"""Asks those who have neither a password nor a second factor who they are: by a code that goes to their mailbox.

They come in through Google or GitHub. django-allauth asks again for passwords and second factors, and lets whoever has
none of them pass: this is the way for them, and it hangs on allauth's own hooks (`accounts/adapters.py`).
"""

from __future__ import annotations

import time
from typing import Any, Final, Self, cast

from allauth.account import app_settings
from allauth.account.adapter import get_adapter
from allauth.account.forms import ConfirmLoginCodeForm
from allauth.account.internal.flows.code_verification import AbstractCodeVerificationProcess
from allauth.account.internal.flows.login import get_authentication_records, record_authentication
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.account.views import BaseReauthenticateView
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.rate_limits import too_many_requests, wait_seconds

_SESSION_KEY: Final = "reauthentication_by_mail"
_MAX_ATTEMPTS: Final = 3


def is_due(request: HttpRequest) -> bool:
    """Returns whether a mailed code has to be typed in: there is no other way, and the last time is long ago."""
    if not request.user.is_authenticated or get_reauthentication_flows(request.user):
        return False
    records = get_authentication_records(request, request.user)
    times = [record["at"] for record in records if record.get("reauthenticated")]
    return not times or time.time() - max(times) >= app_settings.REAUTHENTICATION_TIMEOUT


class MailedCode(AbstractCodeVerificationProcess):  # type: ignore[misc]
    """A code on its way to whoever is signed in; the session remembers it."""

    def __init__(self, request: HttpRequest, state: dict[str, Any]) -> None:
        self.request = request
        timeout = app_settings.EMAIL_VERIFICATION_BY_CODE_TIMEOUT
        super().__init__(max_attempts=_MAX_ATTEMPTS, timeout=timeout, state=state, user=request.user)

    @classmethod
    def begin(cls, request: HttpRequest) -> None:
        """Mails a new code; the ones before it stop to work."""
        email = cast(User, request.user).email
        cls(request, cls.initial_state(user=request.user, email=email)).send()

    @classmethod
    def pending(cls, request: HttpRequest) -> Self | None:
        """Returns the code that was mailed, or None when there is none that works."""
        state = request.session.get(_SESSION_KEY)
        return cls(request, state).abort_if_invalid() if state else None

    def send(self) -> None:
        """Makes the code and mails it."""
        self.state["code"] = get_adapter().generate_email_verification_code()
        context = {"request": self.request, "code": self.code}
        get_adapter().send_mail("account/email/reauthentication_code", self.state["email"], context)
        self.persist()

    def persist(self) -> None:
        """Keeps the code and the failed attempts in the session."""
        self.request.session[_SESSION_KEY] = self.state

    def abort(self) -> None:
        """Forgets the code."""
        self.request.session.pop(_SESSION_KEY, None)

    def finish(self) -> None:
        """Notes that the person is who they said."""
        self.abort()
        record_authentication(self.request, self.user, method="code", reauthenticated=True)


class ReauthenticateByMailView(BaseReauthenticateView):  # type: ignore[misc]
    """Mails a code when it is opened, and goes on with what was asked for once the code is typed in."""

    form_class = ConfirmLoginCodeForm
    template_name = "account/reauthenticate_by_mail.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Shows where to type the code, which is on its way."""
        if MailedCode.pending(request) is None:
            if seconds := wait_seconds(request, "reauthentication_mail"):
                return too_many_requests(request, seconds=seconds)
            MailedCode.begin(request)
        page: HttpResponse = super().get(request, *args, **kwargs)
        return page

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Takes the code, or the wish for another one."""
        process = MailedCode.pending(request)
        if process is None:
            messages.error(request, _("That code works no more. A new one is on its way to you."))
            return self._start_anew()
        if request.POST.get("action") == "resend":
            process.abort()
            return self._start_anew()
        page: HttpResponse = super().post(request, *args, **kwargs)
        return page

    def get_form_kwargs(self) -> dict[str, Any]:
        """Tells the form what to expect."""
        process = MailedCode.pending(self.request)
        return {**super().get_form_kwargs(), "code": process.code if process else ""}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Says where the code went."""
        return {**super().get_context_data(**kwargs), "email": self.request.user.email}

    def form_valid(self, form: Any) -> HttpResponse:
        """Goes on with what was asked for."""
        if (process := MailedCode.pending(self.request)) is not None:
            process.finish()
        answer: HttpResponse = super().form_valid(form)
        return answer

    def form_invalid(self, form: Any) -> HttpResponse:
        """Counts the wrong code; after the last attempt a new one is needed."""
        process = MailedCode.pending(self.request)
        if process is not None and process.record_invalid_attempt():
            page: HttpResponse = super().form_invalid(form)
            return page
        messages.error(self.request, _("That was wrong three times. A new code is on its way to you."))
        return self._start_anew()

    def _start_anew(self) -> HttpResponse:
        return HttpResponseRedirect(self.passthrough_next_url(self.request.path))
