"""What was finished of a restoration that was cancelled or failed: joined to a video that can be downloaded.

The segments that the journal lists from the first one on, without a gap, are joined by the worker's own program
(`gpu_worker.engine.joining`), in a process of its own: nothing is encoded anew, and the sound is cut to fit.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from gpu_worker.contract import Journal, JournalEntry
from restorations import notifications, objects, segments
from restorations.models import Restoration
from restorations.stores.scratch import scratch_folder

logger = logging.getLogger(__name__)

#: For so long after the end a partial result is tried again; afterwards the segments go without one.
LIMIT: Final = timedelta(hours=1)
#: After so long they go in any case: a join that is killed each time, or a storage that is away, says nothing.
LONGEST: Final = timedelta(days=1)
_JOIN_SECONDS: Final = 20 * 60


class JoinFailed(Exception):
    """The segments could not be joined; the message is for operators."""


def waiting() -> Any:
    """Returns the restorations that ended without a result and whose segments are still there."""
    ended = Restoration.objects.filter(status__in=(Restoration.Status.CANCELLED, Restoration.Status.FAILED))
    return ended.filter(num_segment_objects__gt=0)


def keep(restoration_id: UUID | str) -> None:
    """Makes the partial result of a restoration that has ended, and deletes its segments. Safe to repeat.

    Of a preview nothing is kept.
    """
    restoration = waiting().select_related("video", "workspace").filter(pk=restoration_id).first()
    if restoration is None:
        return
    if restoration.is_preview or timezone.now() - restoration.status_at > LONGEST:
        segments.forget(restoration)
        return
    journal = segments.journal_of(restoration)
    finished = _from_the_first(journal)
    if finished and not restoration.video.deleted_at and not restoration.workspace.is_closing:
        try:
            _make(restoration, finished)
        except (JoinFailed, objects.ObjectMissing) as exc:
            logger.warning("no partial result restoration=%s error=%s", restoration.pk, exc)
            if timezone.now() - restoration.status_at < LIMIT:
                return
    segments.forget(restoration)


def _from_the_first(journal: Journal | None) -> list[JournalEntry]:
    """Returns the finished segments that follow each other from the video's beginning."""
    finished: list[JournalEntry] = []
    for entry in journal.segments if journal is not None else ():
        if entry.index != len(finished) or entry.start != (finished[-1].end if finished else 0):
            break
        finished.append(entry)
    return finished


def _make(restoration: Restoration, finished: list[JournalEntry]) -> None:
    with scratch_folder() as folder, ExitStack() as copies:
        paths = _verified(restoration, finished, copies)
        if not paths:
            return
        source = copies.enter_context(objects.local_copy(restoration.video.storage_key))
        report = _join(restoration, source, paths, folder)
        result = Path(report["path"])
        key = f"{restoration.workspace_id}/results/{restoration.pk}/partial{result.suffix}"
        size = result.stat().st_size
        objects.save_file(key, result)
    expires_at = timezone.now() + timedelta(hours=restoration.workspace.retention_hours)
    Restoration.objects.filter(pk=restoration.pk).update(
        partial_key=key, partial_bytes=size, partial_frames=report["num_frames"], expires_at=expires_at
    )
    restoration.refresh_from_db()
    notifications.restoration_changed(restoration)


def _verified(restoration: Restoration, finished: list[JournalEntry], copies: ExitStack) -> list[Path]:
    """Returns the segments' files up to the first that is not what the journal says."""
    paths = []
    for entry in finished:
        key = segments.key_of(restoration, entry.index)
        try:
            if objects.sha256(key) != entry.sha256:
                break
            paths.append(copies.enter_context(objects.local_copy(key)))
        except objects.ObjectMissing:
            break
    return paths


def _join(restoration: Restoration, source: Path, paths: list[Path], folder: Path) -> dict[str, Any]:
    job = {
        "source": str(source),
        "result": str(folder / "partial"),
        "segments": [str(path) for path in paths],
        "width": restoration.res_w,
        "height": restoration.res_h,
        "output": restoration.output,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gpu_worker.engine.joining"],
            input=json.dumps(job),
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=_JOIN_SECONDS,
            check=True,
        )
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as exc:
        raise JoinFailed(exc.stderr.strip()[-300:]) from exc
    except (subprocess.TimeoutExpired, ValueError) as exc:
        raise JoinFailed(type(exc).__name__) from exc
    return report


def forget(restoration: Restoration) -> None:
    """Deletes a partial result, on time or because its owner says so."""
    objects.delete([restoration.partial_key])
    Restoration.objects.filter(pk=restoration.pk).update(partial_key="", expires_at=None)
