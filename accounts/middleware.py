"""What happens around each request: who operates, its scope, the person's time zone and language, closed accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts import localization, scope
from accounts.addresses import client_address
from accounts.models import User
from accounts.second_factor import has_second_factor

Answer = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class OperatorMiddleware:
    """Sends operators without a second factor to set one up, before anything of Operations is shown or done."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: object, kwargs: object
    ) -> HttpResponse | None:
        """Lets operators through who are safe, and everybody out."""
        user, match = request.user, request.resolver_match
        is_inside = (
            match is not None and match.app_names[:1] == ["admin"] and match.view_name != "admin:logout"
        )
        if not (is_inside and isinstance(user, User) and user.is_staff):
            return None
        if not settings.OPERATORS_NEED_SECOND_FACTOR or has_second_factor(user):
            return None
        messages.warning(
            request,
            _("Operations need a second step. Set up a passkey or an app here, then open Operations again."),
        )
        return redirect("mfa_index")


class ScopeMiddleware:
    """Says who asks and from where; whose rows may be seen is up to the view's door.

    Staff see everybody's rows under Operations, and views marked by `scope.sees_everything` do.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self._acall(request)
        token = scope.begin(_scope(request, request.user))
        try:
            return self.get_response(request)
        finally:
            scope.end(token)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        token = scope.begin(_scope(request, await request.auser()))
        try:
            answer = self.get_response(request)
            assert isinstance(answer, Awaitable)
            return await answer
        finally:
            scope.end(token)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: object, kwargs: object
    ) -> None:
        """Opens what has to see everything: marked views, and Operations for its staff."""
        match = request.resolver_match
        is_operator = match is not None and match.app_names[:1] == ["admin"] and request.user.is_staff
        if is_operator or getattr(view, "sees_everything", False):
            scope.enter_everything()


def _scope(request: HttpRequest, user: object) -> scope.Scope:
    return scope.Scope(
        person_id=user.pk if isinstance(user, User) else None,
        address=client_address(request),
        user_agent=request.headers.get("User-Agent", "")[:300],
    )


class LocalizationMiddleware:
    """Shows times and words as the person wants them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not isinstance(request.user, User):
            with localization.as_browser(request):
                return self.get_response(request)
        localization.learn_time_zone(request.user, request)
        with localization.as_seen_by(request.user):
            return self.get_response(request)


class ClosedAccountMiddleware:
    """Shows somebody whose account is about to be deleted how to keep it, and nothing else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: object, kwargs: object
    ) -> HttpResponse | None:
        """Lets the few pages through that a closed account still has."""
        user, match = request.user, request.resolver_match
        if not isinstance(user, User) or not user.is_closing:
            return None
        if match is not None and match.view_name in settings.PAGES_OF_CLOSED_ACCOUNTS:
            return None
        if request.method in ("GET", "HEAD"):
            return redirect("account-delete")
        raise PermissionDenied


class SignInMiddleware(LoginRequiredMiddleware):
    """Leads back, after signing in, to the page whose form was sent: the form's own address has no page to show."""

    def handle_no_permission(
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseRedirect:
        """Sends the browser to sign in."""
        if request.method in ("GET", "HEAD"):
            return super().handle_no_permission(request, view_func)
        page = urlsplit(request.headers.get("Referer", ""))._replace(scheme="", netloc="").geturl()
        return redirect_to_login(
            page or "/", self.get_login_url(view_func), self.get_redirect_field_name(view_func)
        )
