"""Limits how often a person, a workspace and an address may do what costs something.

allauth limits what happens before somebody is signed in (`ACCOUNT_RATE_LIMITS`); this limits what happens after.
Written here and not taken from a package: django-ratelimit's last release is of 2023 and knows nothing of
workspaces, and counting in the cache takes a screen.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.addresses import client_network
from accounts.refusals import not_now

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponse]
#: allauth does not say when it lets somebody in again; its limits on addresses are of a minute.
ALLAUTH_SECONDS: Final = 60


def rate_limited(action: str) -> Callable[[View], View]:
    """Answers 429 once `settings.RATE_LIMITS[action]` is used up; stands below the decorator that opens the door."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if seconds := wait_seconds(request, action):
                return too_many_requests(request, seconds=seconds)
            return view(request, *args, **kwargs)

        return wrapped

    return decorate


def wait_seconds(request: HttpRequest, action: str) -> int:
    """Counts a request; returns 0, or the seconds until the next one of its kind is taken.

    Counts stand in the cache, in windows of fixed length. Without a cache nothing is counted and everything is taken:
    an installation that lost Redis for a minute goes on.
    """
    now = time.time()
    waits = [0]
    for who, name in _who(request):
        limit = settings.RATE_LIMITS[action].get(who)
        if limit is None:
            continue
        amount, seconds = limit
        window = int(now // seconds)
        if _count(f"limit:{action}:{who}:{name}:{window}", seconds) > amount:
            waits.append(math.ceil((window + 1) * seconds - now))
    return max(waits)


def _who(request: HttpRequest) -> Iterator[tuple[str, str]]:
    yield "address", client_network(request)
    if request.user.is_authenticated:
        yield "person", str(request.user.pk)
    if workspace := getattr(request, "workspace", None):
        yield "workspace", str(workspace.pk)


def _count(key: str, seconds: int) -> int:
    try:
        cache.add(key, 0, timeout=seconds)
        return int(cache.incr(key))
    except ValueError:  # it ran out between the two
        return 1
    except Exception:
        # Each cache has errors of its own, and Django names none of them.
        logger.warning("rate limit not counted key=%s", key, exc_info=True)
        return 0


def too_many_requests(request: HttpRequest, seconds: int = ALLAUTH_SECONDS) -> HttpResponse:
    """Answers 429 with the time to wait."""
    minutes = max(1, round(seconds / 60))
    wait = ngettext("Wait %(n)s minute, then try again.", "Wait %(n)s minutes, then try again.", minutes)
    sentence = _("That was too often in a short time.") + " " + wait % {"n": minutes}
    is_json = request.content_type == "application/json"
    return not_now(request, sentence, status=429, seconds=seconds, is_json=is_json)
