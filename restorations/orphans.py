"""Find objects without rows, and rows without objects; remove the first, report the second.

Storage and database cannot change in one transaction, so a crash between them leaves something behind. An object that
no row names is removed only when it is older than any upload, job or import can be, or when its attempt has lost for
good; and it is looked for once more right before. Should most of the storage look like orphans, the database is the
wrong one, and nothing is removed.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

from accounts import scope
from restorations import losses, objects
from restorations.models import Attempt, LinkImport, Restoration, Upload, Video
from restorations.rejections import Rejection
from restorations.stores.files import FileStore

logger = logging.getLogger(__name__)

#: Signed addresses of workers hold for a day and up to an hour more; what is younger may still get its row.
GRACE: Final = timedelta(hours=26)
#: Rows of this age have their objects, or have lost them.
ROW_GRACE: Final = timedelta(hours=1)
#: A result that nobody wants any more may still be on its way for a moment.
LOST_GRACE: Final = timedelta(minutes=10)
#: More orphans than this, and more than this share of all, are no orphans.
MAX_ORPHANS: Final = 100
MAX_SHARE: Final = 0.2
_BATCH: Final = 500
#: Where our objects lie; whatever else is in a bucket belongs to somebody else and is only counted.
_OURS: Final = re.compile(
    r"([0-9a-f-]{36}/(sources|posters|proxies|results|segments)|people/\d+/exports|checks)/[^/].*"
)


class TooMany(Exception):
    """So much of the storage has no rows that the database must be the wrong one; nothing was removed."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A row whose object is not in storage."""

    row: Video | Restoration
    key: str

    def __str__(self) -> str:
        return f"{self.row._meta.model_name} {self.row.pk}"


@dataclass(slots=True)
class Report:
    """What a search found, and what of it was removed."""

    num_objects: int = 0
    num_bytes: int = 0
    num_foreign: int = 0
    orphans: list[objects.StoredObject] = field(default_factory=list)
    uploads: list[objects.BegunUpload] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    num_removed: int = 0
    num_scratch: int = 0

    @property
    def orphan_bytes(self) -> int:
        """How much the orphans take."""
        return sum(orphan.size_bytes for orphan in self.orphans)

    def __str__(self) -> str:
        return (
            f"{self.num_objects} objects of {self.num_bytes} bytes; without a row: {len(self.orphans)} of "
            f"{self.orphan_bytes} bytes and {len(self.uploads)} unfinished uploads, {self.num_removed} removed; "
            f"rows without an object: {len(self.missing)}; not ours: {self.num_foreign}"
        )


def sweep(*, removes: bool = True, is_forced: bool = False) -> Report:
    """Searches both directions and removes the orphans; raises `TooMany`, or `StorageUnavailable`."""
    with scope.across_workspaces():
        is_ours = losses.is_ours()
        report = find()
        if removes:
            _remove(report, is_forced=is_forced)
            report.num_scratch = _sweep_scratch()
        losses.note(missing.row for missing in report.missing)
        losses.forget_found([missing.key for missing in report.missing])
        if is_ours or not report.missing:
            losses.leave_sign()
    logger.info("storage swept %s", report)
    for missing in report.missing:
        logger.error("object missing row=%s key=%s", missing, missing.key)
    return report


# --- Objects without rows -------------------------------------------------------------------------------------


def find() -> Report:
    """Returns what has no row, and which rows have no object; changes nothing."""
    report, now = Report(), timezone.now()
    there: set[str] = set()
    for batch in _batches(objects.walk(), _BATCH):
        there.update(item.key for item in batch)
        report.num_objects += len(batch)
        report.num_bytes += sum(item.size_bytes for item in batch)
        ours = [item for item in batch if _OURS.fullmatch(item.key)]
        report.num_foreign += len(batch) - len(ours)
        report.orphans += _without_rows(ours, now)
    report.uploads = [begun for begun in objects.multiparts() if _is_forgotten(begun, now)]
    report.missing = list(_rows_without_objects(there, now))
    return report


def _batches(items: Iterable[objects.StoredObject], size: int) -> Iterator[list[objects.StoredObject]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _without_rows(items: list[objects.StoredObject], now: datetime) -> list[objects.StoredObject]:
    unnamed = [item for item in items if now - item.modified_at > LOST_GRACE]
    used = named([item.key for item in unnamed])
    unnamed = [item for item in unnamed if item.key not in used]
    given_up = _given_up([item.key for item in unnamed])
    return [item for item in unnamed if now - item.modified_at > GRACE or item.key in given_up]


def named(keys: Collection[str]) -> set[str]:
    """Returns which of these objects anybody needs: everyone in `OBJECT_OWNERS` is asked."""
    owners: list[Callable[[Collection[str]], set[str]]] = [
        import_string(name) for name in settings.OBJECT_OWNERS
    ]
    return set().union(*(owner(keys) for owner in owners))


def keys_in_use(keys: Collection[str]) -> set[str]:
    """Returns which of these objects belong to uploads, videos and restorations that need them.

    Of a restoration that has ended only the attempt that won counts.
    """
    wanted = set(keys)
    columns: set[str] = {losses.SIGN}
    for rows, names in (
        (Video.objects.all(), ("storage_key", "poster_key", "proxy_key")),
        (Upload.objects.unfinished(), ("storage_key",)),
        (LinkImport.objects.under_way(), ("storage_key",)),
        (Restoration.objects.all(), ("result_key", "proxy_key", "partial_key")),
        (
            Attempt.objects.filter(
                Q(restoration__status__in=Restoration.ACTIVE)
                | Q(status=Attempt.Status.SUCCEEDED, restoration__status=Restoration.Status.SUCCEEDED)
            ),
            ("result_key", "manifest_key"),
        ),
    ):
        for name in names:
            columns.update(rows.filter(**{f"{name}__in": wanted}).values_list(name, flat=True))
    return (columns | _segments_in_use(wanted)) & wanted


def _segments_in_use(keys: Collection[str]) -> set[str]:
    """Returns which of these are segments or journals of a restoration that may need them."""
    owners = {key: key.split("/")[2] for key in keys if key.split("/")[1] == "segments"}
    kept = Restoration.objects.filter(
        Q(status__in=Restoration.ACTIVE) | Q(num_segment_objects__gt=0), pk__in=set(owners.values())
    )
    known = {str(pk) for pk in kept.values_list("pk", flat=True)}
    return {key for key, owner in owners.items() if owner in known}


def _given_up(keys: Collection[str]) -> set[str]:
    """Returns which of these are results of attempts that lost: no row will ever want them."""
    over = Attempt.objects.exclude(restoration__status__in=Restoration.ACTIVE)
    lost = over.filter(Q(result_key__in=keys) | Q(manifest_key__in=keys))
    return {key for pair in lost.values_list("result_key", "manifest_key") for key in pair}


def _is_forgotten(begun: objects.BegunUpload, now: datetime) -> bool:
    """Returns whether nobody will go on with an upload in parts: neither a browser, nor an import, nor a worker."""
    if now - begun.begun_at < GRACE:
        return False
    users = (Upload.objects.unfinished(), LinkImport.objects.under_way())
    return not any(rows.filter(storage_upload_id=begun.upload_id).exists() for rows in users)


def _remove(report: Report, *, is_forced: bool) -> None:
    too_many = max(MAX_ORPHANS, MAX_SHARE * report.num_objects)
    if len(report.orphans) > too_many and not is_forced:
        raise TooMany(
            f"{len(report.orphans)} of {report.num_objects} objects have no row; nothing was removed"
        )
    for batch in _batches(report.orphans, _BATCH):
        keys = [item.key for item in batch]
        # Once more: a row may have come while the rest was listed.
        used = named(keys)
        gone = [key for key in keys if key not in used]
        objects.delete(gone)
        report.num_removed += len(gone)
        for key in gone:
            logger.warning("orphan removed key=%s", key)
    for begun in report.uploads:
        objects.abort_multipart(begun.key, begun.upload_id)
        report.num_removed += 1


# --- Rows without objects -------------------------------------------------------------------------------------


def _rows_without_objects(there: Collection[str], now: datetime) -> Iterator[Missing]:
    settled = now - ROW_GRACE
    videos = Video.objects.present().exclude(storage_key="").exclude(rejection=Rejection.LOST)
    results = Restoration.objects.filter(status=Restoration.Status.SUCCEEDED)
    columns: tuple[tuple[QuerySet[Any], str], ...] = (
        (videos.filter(created_at__lt=settled), "storage_key"),
        (results.filter(finished_at__lt=settled).select_related("video"), "result_key"),
    )
    for rows, column in columns:
        for pk, key in rows.values_list("pk", column).iterator():
            # It may have come after its place in the listing had passed, or gone with its row.
            if key in there or objects.exists(key):
                continue
            if (row := rows.filter(**{"pk": pk, column: key}).first()) is not None:
                yield Missing(row, key)


# --- This machine's disk --------------------------------------------------------------------------------------


def _sweep_scratch() -> int:
    """Deletes files that a killed process left on their way; returns how many."""
    limit = timezone.now() - GRACE
    store = objects.store()
    num_deleted = store.sweep_staging(limit) if isinstance(store, FileStore) else 0
    for folder in Path(settings.VAR_DIR, "scratch").glob("*"):
        try:
            touched_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except FileNotFoundError:
            continue
        if touched_at < limit and not _is_held(folder / "lock"):
            shutil.rmtree(folder, ignore_errors=True)
            num_deleted += 1
    return num_deleted


def _is_held(lock: Path) -> bool:
    """Returns whether the worker whose folder this is lives: it holds the folder's lock, idle or not."""
    try:
        with lock.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False
