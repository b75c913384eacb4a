"""How templates write sizes, times and addresses of objects."""

from __future__ import annotations

from django import template
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from restorations import objects
from restorations.models import Video

register = template.Library()


@register.simple_tag
def object_url(key: str) -> str:
    """Returns a signed address for a stored object, or nothing for an empty key."""
    return objects.address_to_read(key) if key else ""


@register.filter
def minus(value: int, other: int) -> int:
    """Returns the difference of two whole numbers."""
    return value - other


@register.filter
def dollars(cents: int) -> str:
    """Returns cents as dollars, such as $0.64."""
    return f"${cents // 100:,}.{cents % 100:02d}"


@register.filter
def clock(seconds: float) -> str:
    """Returns seconds as on a player: 0:05, or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _unit(seconds: float) -> tuple[int, str]:
    """Returns a count and the unit that people would use for it."""
    if seconds < 5400:
        return max(1, round(seconds / 60)), "minute"
    return round(seconds / 3600), "hour"


@register.filter
def about(seconds: float) -> str:
    """Returns an estimate that looks like one: about 2 minutes."""
    return about_range((seconds, seconds))


@register.filter
def about_range(bounds: tuple[float, float]) -> str:
    """Returns a range of seconds as an estimate: about 2-5 minutes, less than a minute."""
    low, high = bounds
    if high < 50:
        return _("less than a minute")
    (last, unit), (first, first_unit) = _unit(high), _unit(low)
    if first_unit != unit:
        first = 1
    if unit == "minute":
        words = ngettext("about %(range)s minute", "about %(range)s minutes", last)
    else:
        words = ngettext("about %(range)s hour", "about %(range)s hours", last)
    return words % {"range": str(last) if first >= last else f"{first}–{last}"}


@register.filter
def facts(video: Video) -> list[tuple[str | Promise, str]]:
    """Returns what is known about a video as labels and values, without jargon where there is a word."""
    rate = float(video.rate)
    return [
        (gettext_lazy("Length"), clock(video.duration_seconds)),
        (gettext_lazy("Picture"), f"{video.width} × {video.height}"),
        (gettext_lazy("Frames"), f"{video.num_frames:,} ({_rate(video, rate)})"),
        (gettext_lazy("Format"), f"{video.codec.upper()}, {video.bit_depth} bit"),
        (gettext_lazy("Sound"), _tracks(video.audio_tracks)),
        (gettext_lazy("Subtitles"), _tracks(video.subtitle_tracks)),
    ]


def _rate(video: Video, rate: float) -> str:
    shown = f"{rate:.3f}".rstrip("0").rstrip(".")
    if video.is_variable_frame_rate:
        return _("%(rate)s a second on average") % {"rate": shown}
    return _("%(rate)s a second") % {"rate": shown}


def _tracks(tracks: list[dict[str, object]]) -> str:
    if not tracks:
        return _("none")
    return ", ".join(
        " ".join(str(track[k]) for k in ("codec", "language") if track.get(k)) for track in tracks
    )
