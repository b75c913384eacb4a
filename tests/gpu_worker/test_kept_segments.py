"""What is kept of a job's segments, where disk and storage do not do what they should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from gpu_worker.contract import SegmentStore
from gpu_worker.engine.job import SegmentSpan
from gpu_worker.kept_segments import KeptSegments
from gpu_worker.settings import WorkerSettings
from gpu_worker.transfer import Transfers
from tests.gpu_worker.http_servers import Storage

_NUM_SEGMENTS = 3


@pytest_asyncio.fixture
async def kept(storage: Storage, tmp_path: Path) -> AsyncIterator[KeptSegments]:
    names = [storage.url(f"segments/{index}") for index in range(_NUM_SEGMENTS)]
    journal = storage.url("journal.json")
    store = SegmentStore(
        frames=16, journal_get=journal, journal_put=journal, put=tuple(names), get=tuple(names)
    )
    transfers = Transfers(WorkerSettings(transfer_tries=2, transfer_pause_seconds=0.01))
    kept = KeptSegments(transfers, store, tmp_path)
    await kept.open("0" * 64)
    yield kept
    await transfers.close()


async def test_a_segment_that_cannot_be_read_keeps_no_other_from_storage(
    kept: KeptSegments, storage: Storage, tmp_path: Path
) -> None:
    async with asyncio.timeout(20), kept.storing():
        for index in range(_NUM_SEGMENTS):
            path = tmp_path / f"{index:05d}.mp4"
            if index != 1:
                path.write_bytes(b"a segment")
            kept.add(SegmentSpan(index=index, start=16 * index, end=16 * index + 16), path, None)
    assert [entry["index"] for entry in json.loads(storage.objects["journal.json"])["segments"]] == [0, 2]
