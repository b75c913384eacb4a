"""Which jobs the poller asks about next: often where somebody looks, seldom elsewhere.

A page that shows a job notes it, by its socket or by each poll. The poller asks for noted jobs at every sweep,
for jobs on a noted workspace's pages every few seconds, and for all others now and then: their end is announced
by RunPod's webhook, and a lost webhook costs half a minute that nobody is watching.

A sweep asks for at most `SWEEP_LIMIT` jobs, so that the rate stays below RunPod's whatever the number of jobs;
with more jobs than that, each is asked about later than its pause says, in turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.core.cache import cache
from django.db.models import QuerySet
from django.utils import timezone

from restorations.models import Attempt

#: RunPod answers 2000 status calls in 10 seconds for a user and endpoint; beat sweeps every 1.5 seconds, and a
#: quarter of the calls is left to webhooks' early looks.
SWEEP_LIMIT: Final = 225
#: A note lasts for this long; pages repeat it at half of it.
NOTE_SECONDS: Final = 20

WATCHED: Final = timedelta(seconds=1)
LISTED: Final = timedelta(seconds=4)
UNWATCHED: Final = timedelta(seconds=20)


def note_restoration(restoration_id: UUID) -> None:
    """Notes that somebody looks at a restoration; the first note has it asked about at once."""
    if cache.add(_restoration_key(restoration_id), 1, timeout=NOTE_SECONDS):
        _look_now(Attempt.objects.filter(restoration=restoration_id), WATCHED)
    else:
        cache.touch(_restoration_key(restoration_id), timeout=NOTE_SECONDS)


def note_workspace(workspace_id: UUID) -> None:
    """Notes that somebody looks at a list of a workspace's restorations."""
    if cache.add(_workspace_key(workspace_id), 1, timeout=NOTE_SECONDS):
        attempts = Attempt.objects.filter(restoration__workspace=workspace_id, look_pause__gt=LISTED)
        _look_now(attempts, LISTED)
    else:
        cache.touch(_workspace_key(workspace_id), timeout=NOTE_SECONDS)


def due() -> list[Attempt]:
    """Returns the attempts to ask about now, the longest overdue first.

    Up to half of a sweep goes to what somebody watches, so that thousands of other jobs do not delay it; the rest
    goes to all in turn, so that nothing is forgotten.
    """
    now = timezone.now()
    open_now = (
        Attempt.objects.filter(status=Attempt.Status.IN_FLIGHT, next_look_at__lte=now)
        .select_related("restoration__workspace")
        .order_by("next_look_at")
    )
    watched = list(open_now.filter(look_pause=WATCHED)[: SWEEP_LIMIT // 2])
    others = open_now.exclude(pk__in=[attempt.pk for attempt in watched])
    return watched + list(others[: SWEEP_LIMIT - len(watched)])


def plan_next_looks(attempts: Iterable[Attempt]) -> None:
    """Sets, without saving, when each attempt is asked about again."""
    asked = list(attempts)
    keys = {_restoration_key(attempt.restoration_id) for attempt in asked}
    keys |= {_workspace_key(attempt.restoration.workspace_id) for attempt in asked}
    noted = cache.get_many(keys)
    now = timezone.now()
    for attempt in asked:
        if _restoration_key(attempt.restoration_id) in noted:
            attempt.look_pause = WATCHED
        elif _workspace_key(attempt.restoration.workspace_id) in noted:
            attempt.look_pause = LISTED
        else:
            attempt.look_pause = UNWATCHED
        attempt.next_look_at = now + attempt.look_pause


def _look_now(attempts: QuerySet[Attempt], pause: timedelta) -> None:
    later = attempts.filter(status=Attempt.Status.IN_FLIGHT, next_look_at__gt=timezone.now())
    later.update(next_look_at=timezone.now(), look_pause=pause)


def _restoration_key(restoration_id: UUID) -> str:
    return f"watched:restoration:{restoration_id}"


def _workspace_key(workspace_id: UUID) -> str:
    return f"watched:workspace:{workspace_id}"
