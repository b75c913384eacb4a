"""Says no for now, in the form that whoever asked can show."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render


def not_now(
    request: HttpRequest, sentence: str, *, status: int, seconds: int, is_json: bool, **details: Any
) -> HttpResponse:
    """Answers with a sentence and when to ask again: as JSON, or as the status's own page.

    `details` go into the JSON beside the sentence.
    """
    if is_json:
        response: HttpResponse = JsonResponse({"error": sentence, **details}, status=status)
    else:
        response = render(request, f"{status}.html", {"sentence": sentence}, status=status)
    response.headers["Retry-After"] = str(seconds)
    return response
