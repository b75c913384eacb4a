"""Begins and ends the scope of each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from accounts import scope
from accounts.models import User

Answer = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


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
        address=request.META.get("REMOTE_ADDR", ""),
        user_agent=request.headers.get("User-Agent", "")[:300],
    )
