"""Whole jobs on ranks under torchrun, with networks of random weights: one rank, two ranks, and what ends them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpu_worker.contract import Engine, ErrorCode, Manifest, parse_error
from tests.gpu_worker.http_servers import Storage
from tests.gpu_worker.processes import EndpointProcess, WorkerProcess, is_running, until
from tests.gpu_worker.test_worker import distances, frames_of, journal, puts, request, with_segments

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]

Start = Callable[..., WorkerProcess]
NUM_FRAMES = 599
#: With a bound on memory, for plans follow from what is free, and pixels from plans.
TINY = {
    "WORKER_ENGINE": Engine.SEEDVR2.value,
    "WORKER_MODEL": "tiny-7b",
    "WORKER_MEMORY_GIB": "2",
    "OMP_NUM_THREADS": "1",
}


def order(storage: Storage, **changes: Any) -> dict[str, Any]:
    """A clip of 24 seconds, as small as the networks take it, in segments of two and a half seconds and more."""
    store = with_segments(storage, frames=60, count=10)
    return request(
        storage, "half_minute.mp4", res_w=32, res_h=32, num_frames=NUM_FRAMES, segments=store, **changes
    )


def restored(endpoint: EndpointProcess, job_id: str) -> Manifest:
    """Waits for a job that has to succeed."""
    document = endpoint.until_status(job_id, seconds=150)
    assert document["status"] == "COMPLETED", document
    return Manifest.from_json(document["output"])


def test_two_ranks_share_a_video_are_cancelled_and_replaced(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint, WORKER_GPUS="2", **TINY)
    manifest = restored(own_endpoint, own_endpoint.run(order(storage)))
    assert (manifest.engine, manifest.model, manifest.num_frames) == (Engine.SEEDVR2, "tiny-7b", NUM_FRAMES)
    num_segments = len(journal(storage))
    assert (manifest.segments_made, manifest.segments_reused) == (num_segments, 0)
    assert num_segments >= 4, "both ranks had some"
    whole = frames_of(storage.objects["result.mp4"])
    ranks = worker.ranks()
    assert len(ranks) == 2

    # Cancelled: both ranks stop, give their memory back (or they would be replaced), and stay.
    storage.objects.clear()
    job_id = own_endpoint.run(order(storage))
    until(lambda: journal(storage), seconds=100, what="a segment is finished")
    own_endpoint.http.post(f"/v2/local/cancel/{job_id}")
    until(lambda: not list(worker.scratch.glob("worker-*/job-*")), seconds=30, what="the job is over")
    assert worker.ranks() == ranks

    # One rank killed at work: the job ends with a code, both ranks are new, the next attempt goes on.
    storage.objects.clear()
    job_id = own_endpoint.run(order(storage, attempt_id="attempt-2"))
    until(lambda: journal(storage), seconds=100, what="a segment is finished")
    os.kill(ranks[1], signal.SIGKILL)
    failed = own_endpoint.until_status(job_id, seconds=60)
    assert parse_error(failed["error"])[0] is ErrorCode.OUT_OF_MEMORY, failed
    kept = len(journal(storage))
    manifest = restored(own_endpoint, own_endpoint.run(order(storage, attempt_id="attempt-3")))
    assert manifest.segments_reused == kept
    assert not set(ranks) & set(worker.ranks())
    assert max(distances(frames_of(storage.objects["result.mp4"]), whole)) < 3.0


def test_one_rank_goes_on_where_two_died_with_their_worker(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    little = {**TINY, "WORKER_MEMORY_GIB": "0.32"}
    first = start_worker(own_endpoint, "first", WORKER_GPUS="2", **little)
    job_id = own_endpoint.run(order(storage))
    until(lambda: len(journal(storage)) >= 2, seconds=150, what="two segments are finished")
    ranks = first.ranks()
    first.kill()
    until(lambda: not any(map(is_running, ranks)), seconds=10, what="the ranks died with their worker")
    kept = len(journal(storage))
    second = start_worker(own_endpoint, "second", **TINY)
    manifest = restored(own_endpoint, job_id)
    assert (manifest.segments_reused, len(second.ranks())) == (kept, 1)
    plans = [segment["plan"] for segment in json.loads(storage.objects["segments/journal.json"])["segments"]]
    assert plans == [{"window_length": 8, "tile_size": 0}] * len(plans), "it has room for more"
    names = [name for name in puts(storage) if name.startswith("segments/0")]
    assert len(names) - len(set(names)) <= 2, "a lost machine costs at most one segment for each rank"

    # The whole in one go, in fewer and longer segments: joints do not show.
    resumed = frames_of(storage.objects["result.mp4"])
    second.terminate()
    start_worker(own_endpoint, "third", **little)
    manifest = restored(own_endpoint, own_endpoint.run({**order(storage), "segments": None}))
    assert manifest.segments_made < len(journal(storage))
    assert np.mean(distances(resumed, frames_of(storage.objects["result.mp4"]))) < 1.0


def test_a_job_without_enough_memory_ends_with_its_code(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint, **{**TINY, "WORKER_MEMORY_GIB": "0.001"})
    for _ in range(2):
        document = own_endpoint.until_status(own_endpoint.run(order(storage)), seconds=60)
        assert parse_error(document["error"])[0] is ErrorCode.OUT_OF_MEMORY, document
    assert len(worker.ranks()) == 1
