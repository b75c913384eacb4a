"""How long a restoration still takes, as a range."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from restorations.models import Restoration


def time_left(restoration: Restoration, *, now: datetime | None = None) -> tuple[int, int] | None:
    """Returns the fewest and the most seconds that are probably left; None when it has ended.

    Before the first frames the quote's expectation has to do; then the measured pace, which is trusted more
    the more is done.
    """
    if not restoration.is_active:
        return None
    now = now or timezone.now()
    done, total = restoration.num_frames_done, restoration.num_frames
    if restoration.is_being_saved:
        return 1, 30
    if not (restoration.started_at and done and total):
        expected = restoration.expected_seconds
        return expected * 2 // 3, expected * 2
    elapsed = (now - restoration.started_at).total_seconds()
    left = elapsed * max(total - done, 0) / done
    share = done / total
    return round(left * (0.6 + 0.3 * share)), round(left * (1.9 - 0.7 * share)) + 3
