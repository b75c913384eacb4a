"""What visitors see while the storage does not answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.refusals import not_now
from restorations import objects

logger = logging.getLogger(__name__)

#: When scripts and proxies may ask again.
RETRY_SECONDS: Final = 30


class StorageMiddleware:
    """Answers 503 with what to do, where a view could not reach the storage."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Returns the answer, or None for what is not the storage's fault."""
        if not isinstance(exception, objects.StorageUnavailable):
            return None
        logger.warning("storage does not answer path=%s error=%s", request.path, exception)
        return storage_away(request)


def storage_away(request: HttpRequest) -> HttpResponse:
    """Answers 503 with what to do; scripts can tell it from other failures."""
    sentence = _(
        "The place where the files lie does not answer at the moment. Nothing is lost. Please try again in a minute."
    )
    accepted = request.headers.get("Accept", "")
    is_json = request.content_type == "application/json" or "application/json" in accepted
    response = not_now(
        request, sentence, status=503, seconds=RETRY_SECONDS, is_json=is_json, is_storage_away=True
    )
    response.headers["Cache-Control"] = "no-store"
    return response
