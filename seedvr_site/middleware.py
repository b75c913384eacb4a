"""Headers that tell browsers what pages of the site may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from csp.constants import SELF
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

_NO_PAGE: Final = (
    *(
        "accelerometer",
        "autoplay",
        "browsing-topics",
        "camera",
        "display-capture",
        "geolocation",
    ),
    *(
        "gyroscope",
        "hid",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "serial",
        "usb",
        "xr-spatial-tracking",
    ),
)
_OWN_PAGES: Final = (
    *("clipboard-write", "fullscreen", "picture-in-picture"),
    *("publickey-credentials-create", "publickey-credentials-get"),
)
PERMISSIONS_POLICY: Final = ", ".join(
    [*(f"{name}=()" for name in _NO_PAGE), *(f"{name}=(self)" for name in _OWN_PAGES)]
)


class PermissionsPolicyMiddleware:
    """Says which of the device's abilities pages use: no frame and no script brings in another."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS_POLICY)
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        # What one person sees is nobody else's; a proxy in front keeps nothing that does not say that it may.
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response


class FormAddressMiddleware:
    """Says in words that an address takes forms only, to whoever loads the page anew that a refused form led to."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if not (response.status_code == 405 and request.method == "GET"):
            return response
        page = render(request, "405.html", status=405)
        page.headers["Allow"] = response.headers["Allow"]
        return page


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """Adds to django-csp that the admin's scripts, which know no nonces, come from the site itself."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        """Returns the policy of one response."""
        parts = super().get_policy_parts(request, response, report_only)
        match = request.resolver_match
        if not report_only and match is not None and match.app_name == "admin":
            parts.replace = {**(parts.replace or {}), "script-src": [SELF]}
        return parts
