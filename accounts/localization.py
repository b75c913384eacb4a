"""Times and words as a person wants to see them, on pages, in sockets' fragments and in mails."""

from __future__ import annotations

import functools
import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import tzinfo
from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone, translation

from accounts.models import User

#: The browser's own time zone; `static/js/time_zone.js` writes it.
COOKIE: Final = "time_zone"
#: The tz database's folders of places; the rest of it are old names for them.
_REGIONS: Final = (
    *("Africa/", "America/", "Antarctica/", "Arctic/", "Asia/", "Atlantic/", "Australia/", "Europe/"),
    *("Indian/", "Pacific/"),
)


@functools.cache
def time_zones() -> tuple[str, ...]:
    """Returns the names to choose from: UTC, then places."""
    places = (name for name in zoneinfo.available_timezones() if name.startswith(_REGIONS))
    return ("UTC", *sorted(places))


@contextmanager
def as_seen_by(user: User) -> Iterator[None]:
    """Shows times in this person's zone, and words in their language if they chose one that there is."""
    with timezone.override(_zone_named(user.time_zone)):
        if user.language in dict(settings.LANGUAGES):
            with translation.override(user.language):
                yield
        else:
            yield


@contextmanager
def as_browser(request: HttpRequest) -> Iterator[None]:
    """Shows times in the browser's zone to somebody who is not signed in."""
    with timezone.override(_zone_of(request) or timezone.get_default_timezone()):
        yield


def _zone_named(name: str) -> tzinfo:
    """Returns a zone, and the site's own for a name that is gone from the tz database since it was learned."""
    try:
        return zoneinfo.ZoneInfo(name) if name else timezone.get_default_timezone()
    except (KeyError, OSError, ValueError):  # unknown; a folder of zones; no name of a file
        return timezone.get_default_timezone()


def learn_time_zone(user: User, request: HttpRequest) -> None:
    """Keeps the browser's zone for somebody who has not chosen one, once."""
    if user.time_zone or not (zone := _zone_of(request)):
        return
    User.objects.filter(pk=user.pk, time_zone="").update(time_zone=zone)
    user.time_zone = zone


def _zone_of(request: HttpRequest) -> str:
    name = request.COOKIES.get(COOKIE, "")
    return name if name in time_zones() else ""
