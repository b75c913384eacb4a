"""The finished segments of one job: on this disk, and in storage for whoever takes the job over.

A segment is put into storage as soon as it is finished, then the journal that names it. Nothing here is fatal:
without its store a job loses what could have been resumed, not its result; and what storage holds is used only
where fingerprint, size and SHA-256 are right, and made again where not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from gpu_worker.contract import (
    ContractError,
    ErrorCode,
    Journal,
    JournalEntry,
    RestoreRequest,
    SegmentPlan,
    SegmentStore,
    WorkerError,
)
from gpu_worker.engine.job import SegmentSpan
from gpu_worker.transfer import Transfers, sha256_of

logger = logging.getLogger(__name__)

_JOURNAL_MAX_BYTES: Final = 2**20
#: How the names of files begin that come from an earlier worker.
_REUSED: Final = "reused-"
_SEGMENT_TYPE: Final = "application/octet-stream"
_JOURNAL_TYPE: Final = "application/json"


def fingerprint(request: RestoreRequest, *, source_sha256: str, model: str, revision: str) -> str:
    """Returns what stands for everything that segments depend on: source, settings, plan, programs.

    A range divides the video like a pin, so a job that makes a range and one that has it among its pins have the
    same segments: what a preview made is the whole's.
    """
    settings = request.to_json()
    named = ("res_w", "res_h", "seed", "strength", "color_fix", "output")
    frames = None if request.segments is None else request.segments.frames
    borders = sorted({*request.pins, *([request.range] if request.range else [])})
    described = [source_sha256, model, revision, frames, borders, *(settings[name] for name in named)]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


class KeptSegments:
    """The segments that are finished, by this worker or an earlier one."""

    def __init__(self, transfers: Transfers, store: SegmentStore | None, folder: Path) -> None:
        self._transfers = transfers
        self._store = store
        self._folder = folder
        self._fingerprint = ""
        self._files: dict[SegmentSpan, Path] = {}
        #: Finished by an earlier worker; their files may still be on their way.
        self._listed: dict[SegmentSpan, JournalEntry] = {}
        self._kept: dict[int, JournalEntry] = {}
        self._plans: dict[SegmentSpan, SegmentPlan | None] = {}
        self._finished: asyncio.Queue[SegmentSpan] = asyncio.Queue()

    @property
    def spans(self) -> tuple[SegmentSpan, ...]:
        """What needs not be made, in order."""
        return tuple(sorted({*self._files, *self._listed}, key=lambda span: span.index))

    @property
    def num_frames(self) -> int:
        """The frames of what needs not be made."""
        return sum(span.num_frames for span in self.spans)

    @property
    def plan(self) -> SegmentPlan | None:
        """How the last of what needs not be made was fitted into the memory."""
        return next((plan for span in reversed(self.spans) if (plan := self._plans[span]) is not None), None)

    def has(self, span: SegmentSpan) -> bool:
        """True when the segment's file lies here and is what it should be."""
        return span in self._files

    def num_reused(self, spans: Sequence[SegmentSpan]) -> int:
        """How many of these an earlier worker had finished."""
        return sum(self._files[span].name.startswith(_REUSED) for span in spans)

    def paths(self, spans: Sequence[SegmentSpan]) -> tuple[str, ...]:
        """Returns the files of segments that are all here."""
        return tuple(str(self._files[span]) for span in spans)

    def add(self, span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
        """Takes a segment that was just finished, and puts it into storage in its turn."""
        self._listed = {other: entry for other, entry in self._listed.items() if other.index != span.index}
        self._files[span], self._plans[span] = path, plan
        self._finished.put_nowait(span)

    async def open(self, fingerprint: str) -> None:
        """Reads the journal; one that is not there, not readable, or of another job is as good as none."""
        self._fingerprint = fingerprint
        journal = await self._journal()
        if journal is None or journal.fingerprint != fingerprint or self._store is None:
            return
        for entry in journal.segments:
            if entry.index < len(self._store.get):
                span = SegmentSpan(index=entry.index, start=entry.start, end=entry.end)
                self._listed[span], self._plans[span] = entry, entry.plan
                self._kept[entry.index] = entry

    async def _journal(self) -> Journal | None:
        if self._store is None:
            return None
        try:
            document = await self._transfers.fetch_document(
                self._store.journal_get, max_bytes=_JOURNAL_MAX_BYTES
            )
            return None if document is None else Journal.from_json(json.loads(document))
        except (WorkerError, ContractError, ValueError) as error:
            logger.warning("the journal cannot be used: %s", error)
            return None

    async def fetch(self) -> None:
        """Brings the files of earlier workers here; those that are not what the journal says are dropped.

        Raises `OUT_OF_DISK`.
        """
        for span, entry in list(self._listed.items()):
            if (path := await self._fetched(entry)) is not None:
                self._files[span] = path
            else:
                self._kept.pop(entry.index, None)
            self._listed.pop(span, None)

    async def _fetched(self, entry: JournalEntry) -> Path | None:
        assert self._store is not None
        path = self._folder / f"{_REUSED}{entry.index:05d}"
        try:
            await self._transfers.download(
                self._store.get[entry.index], path, num_bytes=entry.bytes, sha256=entry.sha256
            )
        except WorkerError as error:
            if error.code is ErrorCode.OUT_OF_DISK:
                raise
            logger.warning("segment %d is made again: %s", entry.index, error)
            path.unlink(missing_ok=True)
            return None
        return path

    @asynccontextmanager
    async def storing(self) -> AsyncIterator[None]:
        """Puts segments into storage while the block runs.

        After it all that could be stored are, unless the job was cancelled: nobody waits for those.
        """
        task = asyncio.create_task(self._store_all())
        try:
            try:
                yield
            except WorkerError:
                await self._finished.join()
                raise
            await self._finished.join()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _store_all(self) -> None:
        while True:
            span = await self._finished.get()
            try:
                await self._put(span)
            except WorkerError as error:
                logger.warning("segment %d is not kept: %s", span.index, error)
            except Exception:
                # A defect of ours, or a disk's: whoever waits for the others would wait for ever.
                logger.exception("segment %d is not kept", span.index)
            finally:
                self._finished.task_done()

    async def _put(self, span: SegmentSpan) -> None:
        if self._store is None or span.index >= len(self._store.put):
            return
        path = self._files[span]
        num_bytes = path.stat().st_size
        digest = await asyncio.to_thread(sha256_of, path)
        await self._transfers.upload_file(self._store.put[span.index], path, content_type=_SEGMENT_TYPE)
        entry = JournalEntry(
            index=span.index,
            start=span.start,
            end=span.end,
            bytes=num_bytes,
            sha256=digest,
            plan=self._plans[span],
        )
        self._kept[span.index] = entry
        segments = tuple(self._kept[index] for index in sorted(self._kept))
        journal = Journal(fingerprint=self._fingerprint, segments=segments)
        document = json.dumps(journal.to_json()).encode()
        await self._transfers.upload_bytes(self._store.journal_put, document, content_type=_JOURNAL_TYPE)
