"""Whole jobs: client, local endpoint, the SDK's loop, our handler, the CPU engine, storage."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest

from gpu_worker.contract import Engine, ErrorCode, Manifest, Progress, Stage, parse_error
from tests import samples
from tests.gpu_worker.http_servers import Storage
from tests.gpu_worker.processes import REPOSITORY, EndpointProcess, WorkerProcess, is_running, until

pytestmark = pytest.mark.services

Start = Callable[..., WorkerProcess]


def request(storage: Storage, sample: str, **changes: Any) -> dict[str, Any]:
    """Returns a job's input for a sample that is put into storage."""
    content = samples.path(sample).read_bytes()
    storage.objects["source"] = content
    document = {
        "attempt_id": "attempt-1",
        "source_url": storage.url("source"),
        "source_bytes": len(content),
        "result_url": storage.url("result.mp4"),
        "manifest_url": storage.url("manifest.json"),
        "model": "seedvr2-7b",
        "res_w": 320,
        "res_h": 180,
        "sp_size": 1,
        "seed": 7,
        "num_frames": 50,
    }
    return {**document, **changes}


def with_segments(storage: Storage, *, frames: int, count: int) -> dict[str, Any]:
    """Returns addresses for the segments of a job."""
    names = [f"segments/{index:05d}" for index in range(count)]
    return {
        "frames": frames,
        "journal_get": storage.url("segments/journal.json"),
        "journal_put": storage.url("segments/journal.json"),
        "put": [storage.url(name) for name in names],
        "get": [storage.url(name) for name in names],
    }


def journal(storage: Storage) -> list[int]:
    """Returns the numbers of the segments that the journal in storage lists."""
    content = storage.objects.get("segments/journal.json")
    return [] if content is None else [entry["index"] for entry in json.loads(content)["segments"]]


def puts(storage: Storage) -> list[str]:
    """Returns what was put into storage, in order."""
    return [name for verb, name, _range in storage.requests if verb == "PUT"]


def frames_of(content: bytes) -> list[bytes]:
    """Returns a video's decoded frames."""
    with av.open(io.BytesIO(content)) as video:
        return [frame.to_ndarray().tobytes() for frame in video.decode(video=0)]


def distances(some: list[bytes], others: list[bytes]) -> list[float]:
    """Mean absolute difference of each two frames, 0..255: x264 does not always give the same bits."""
    assert len(some) == len(others)
    return [
        float(np.abs(np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8)).mean())
        for one, other in zip(some, others, strict=True)
    ]


def until_restoring(endpoint: EndpointProcess, job_id: str) -> None:
    """Waits until the job's engine has done a frame."""
    until(lambda: (endpoint.status(job_id).get("output") or {}).get("num_frames_done", 0) > 0, seconds=20)


def test_a_video_is_restored(own_endpoint: EndpointProcess, start_worker: Start, storage: Storage) -> None:
    worker = start_worker(own_endpoint)
    # The site counts too much where film was telecined: the worker's own count takes over.
    job_id = own_endpoint.run(request(storage, "bigbuckbunny.mp4", res_w=1280, res_h=720, num_frames=165))
    seen: list[Progress] = []
    while (document := own_endpoint.status(job_id))["status"] in ("IN_QUEUE", "IN_PROGRESS"):
        if "output" in document:
            seen.append(Progress.from_json(document["output"]))
        time.sleep(0.02)
    assert document["status"] == "COMPLETED", document

    manifest = Manifest.from_json(document["output"])
    assert json.loads(storage.objects["manifest.json"]) == manifest.to_json()
    assert storage.content_types == {"result.mp4": "video/mp4", "manifest.json": "application/json"}
    assert [put[1] for put in storage.requests if put[0] == "PUT"] == ["result.mp4", "manifest.json"]
    assert (manifest.engine, manifest.gpus, manifest.seed) == (Engine.CPU, 0, 7)
    assert manifest.result_bytes == len(storage.objects["result.mp4"])
    with av.open(io.BytesIO(storage.objects["result.mp4"])) as result:
        assert sum(1 for _ in result.decode(video=0)) == manifest.num_frames == 132

    assert [progress.sequence for progress in seen] == sorted(progress.sequence for progress in seen)
    assert {progress.stage for progress in seen} >= {Stage.DOWNLOADING, Stage.RESTORING}
    assert max(progress.num_frames_done for progress in seen) <= 132
    counts = [progress.num_frames for progress in seen]
    assert set(counts) == {165, 132}
    assert counts == sorted(counts, reverse=True)
    assert {progress.num_frames for progress in seen if progress.num_frames_done} == {132}
    assert list(worker.scratch.glob("worker-*/job-*")) == []
    assert "topsecret" not in worker.log.read_text() + own_endpoint.log.read_text()


def test_a_cancel_stops_the_work_and_the_next_job_runs_on_the_same_rank(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint)
    store = with_segments(storage, frames=60, count=10)
    job_id = own_endpoint.run(request(storage, "half_minute.mp4", res_w=1280, res_h=720, segments=store))
    until(lambda: journal(storage), seconds=90, what="a segment is finished")
    (rank,) = worker.ranks()
    own_endpoint.http.post(f"/v2/local/cancel/{job_id}")
    until(
        lambda: not list(worker.scratch.glob("worker-*/job-*")), seconds=10, what="the scratch space is empty"
    )
    next_job = own_endpoint.run(request(storage, "pal_25.mp4"))
    assert own_endpoint.until_status(next_job)["status"] == "COMPLETED"
    assert own_endpoint.status(job_id)["status"] == "CANCELLED"
    assert worker.ranks() == [rank]
    assert "manifest.json" in puts(storage)
    assert puts(storage).count("result.mp4") == 1


def test_a_killed_workers_job_goes_on_after_its_last_segment(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    first = start_worker(own_endpoint, "first")
    store = with_segments(storage, frames=60, count=10)
    order = request(storage, "half_minute.mp4", res_w=640, res_h=360, num_frames=599, segments=store)
    job_id = own_endpoint.run(order)
    until(lambda: len(journal(storage)) >= 2, seconds=40, what="two segments are finished")
    (rank,) = first.ranks()
    first.kill()
    until(lambda: not is_running(rank), seconds=5, what="the rank died with its worker")
    assert list(first.scratch.glob("worker-*/job-*"))
    kept = set(journal(storage))
    second = start_worker(own_endpoint, "second")
    document = own_endpoint.until_status(job_id, seconds=60)
    assert (document["status"], document["workerId"]) == ("COMPLETED", "second")
    assert len(list(second.scratch.glob("worker-*"))) == 1, "the killed worker's files are removed"
    assert own_endpoint.http.get("/v2/local/health").json()["jobs"]["retried"] == 1

    manifest = Manifest.from_json(document["output"])
    assert manifest.segments_reused == len(kept)
    made_again = [
        name for name in puts(storage) if name.startswith("segments/0") and puts(storage).count(name) > 1
    ]
    assert len(set(made_again)) <= 1, "a lost machine costs at most one segment"
    with av.open(io.BytesIO(storage.objects["result.mp4"])) as result:
        assert result.streams.video[0].frames == manifest.num_frames == 599

    # The same order made at once has the same frames: nobody sees where the first worker died.
    storage.objects.pop("segments/journal.json")
    resumed = storage.objects["result.mp4"]
    again = own_endpoint.until_status(own_endpoint.run(order), seconds=60)
    assert Manifest.from_json(again["output"]).segments_reused == 0
    assert max(distances(frames_of(storage.objects["result.mp4"]), frames_of(resumed))) < 0.1


def test_a_killed_rank_ends_its_job_and_the_next_attempt_goes_on(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint)
    store = with_segments(storage, frames=60, count=10)
    order = request(storage, "half_minute.mp4", num_frames=599, segments=store)
    job_id = own_endpoint.run(order)
    until(lambda: journal(storage), seconds=30, what="a segment is finished")
    (rank,) = worker.ranks()
    os.kill(rank, signal.SIGKILL)
    document = own_endpoint.until_status(job_id)
    assert parse_error(document["error"])[0] is ErrorCode.OUT_OF_MEMORY
    # What storage holds is not believed: one segment is another's, one is cut off.
    storage.objects["segments/00000"] = storage.objects["segments/00000"][:-1]
    document = own_endpoint.until_status(own_endpoint.run({**order, "attempt_id": "attempt-2"}), seconds=60)
    manifest = Manifest.from_json(document["output"])
    assert manifest.num_frames == 599
    assert manifest.segments_reused == len(set(journal(storage))) - manifest.segments_made
    assert puts(storage).count("segments/00000") == 2
    assert worker.ranks() != [rank]


def test_a_rank_killed_between_jobs_costs_the_next_job_nothing(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint)
    order = request(storage, "pal_25.mp4")
    assert own_endpoint.until_status(own_endpoint.run(order))["status"] == "COMPLETED"
    time.sleep(1.5)  # the SDK looks for its next job once a second: now it is in a long poll
    (rank,) = worker.ranks()
    os.kill(rank, signal.SIGKILL)
    until(lambda: not is_running(rank), what="the rank is gone")
    document = own_endpoint.until_status(own_endpoint.run(order))
    assert document["status"] == "COMPLETED", document


def test_a_stuck_rank_ends_its_job_and_the_next_runs(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint, WORKER_STUCK_SECONDS="3")
    job_id = own_endpoint.run(request(storage, "half_minute.mp4", res_w=1280, res_h=720))
    until_restoring(own_endpoint, job_id)
    (rank,) = worker.ranks()
    os.kill(rank, signal.SIGSTOP)
    document = own_endpoint.until_status(job_id)
    assert parse_error(document["error"])[0] is ErrorCode.ENGINE_STUCK, document
    assert (
        own_endpoint.until_status(own_endpoint.run(request(storage, "pal_25.mp4")))["status"] == "COMPLETED"
    )
    assert not is_running(rank)


def test_segments_of_other_settings_are_not_used_and_a_store_that_is_away_is_not_needed(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    start_worker(own_endpoint)
    order = request(storage, "pal_25.mp4", segments=with_segments(storage, frames=8, count=6))
    for changes, reused in [({}, False), ({}, True), ({"res_w": 160}, False)]:
        done = own_endpoint.until_status(own_endpoint.run({**order, **changes}))
        manifest = Manifest.from_json(done["output"])
        assert (manifest.segments_reused > 0) is reused
    nowhere = "http://127.0.0.1:1/segment?X-Signature=topsecret"
    away = {**order["segments"], "put": [nowhere] * 6, "get": [nowhere] * 6}
    done = own_endpoint.until_status(own_endpoint.run({**order, "res_h": 90, "segments": away}))
    assert done["status"] == "COMPLETED", done


def test_the_segments_of_a_preview_are_segments_of_the_whole(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    """A range of a file becomes a preview; the whole, with that range pinned, leaves out what the preview made."""
    start_worker(own_endpoint)
    order = request(storage, "pal_25.mp4", res_w=160, res_h=90, output="prores")
    order["segments"] = with_segments(storage, frames=16, count=8)

    def restored(**changes: Any) -> tuple[Manifest, list[bytes]]:
        done = own_endpoint.until_status(own_endpoint.run({**order, **changes}))
        assert done["status"] == "COMPLETED", done
        return Manifest.from_json(done["output"]), frames_of(storage.objects["result.mp4"])

    preview, excerpt = restored(range=[18, 40])
    assert preview.segments_made == len(journal(storage)) == 1
    whole, frames = restored(pins=[[18, 40]])
    assert (whole.segments_reused, whole.num_frames) == (1, 50)
    first = round(preview.start_seconds * 25)
    # Borders in mid-shot move on to where a latent ends.
    assert 18 <= first <= 21
    assert excerpt == frames[first : first + preview.num_frames]
    assert frames == restored(pins=[[18, 40]], segments=None)[1]


def test_a_job_survives_a_restart_of_the_endpoint(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    start_worker(own_endpoint)
    job_id = own_endpoint.run(request(storage, "half_minute.mp4", res_w=640, res_h=360))
    until_restoring(own_endpoint, job_id)
    own_endpoint.stop(signal.SIGKILL)
    own_endpoint.start()
    document = own_endpoint.until_status(job_id, seconds=60)
    assert document["status"] == "COMPLETED", document
    assert own_endpoint.http.get("/v2/local/health").json()["jobs"]["retried"] == 0


def test_a_result_posted_while_the_endpoint_is_away_is_made_again(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    start_worker(own_endpoint)
    storage.release_uploads.clear()
    job_id = own_endpoint.run(request(storage, "pal_25.mp4"))
    until(lambda: any(put[0] == "PUT" for put in storage.requests), seconds=20, what="the upload began")
    own_endpoint.stop(signal.SIGKILL)
    storage.release_uploads.set()
    until(lambda: "manifest.json" in storage.objects, seconds=10, what="the manifest is there")
    own_endpoint.start()
    assert own_endpoint.until_status(job_id, seconds=40)["status"] == "COMPLETED"


def test_a_worker_told_to_end_finishes_its_job(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint)
    job_id = own_endpoint.run(request(storage, "half_minute.mp4"))
    until_restoring(own_endpoint, job_id)
    assert worker.terminate() == 0
    assert own_endpoint.status(job_id)["status"] == "COMPLETED"
    assert list(worker.scratch.glob("worker-*")) == []


def test_failures_name_their_code(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    start_worker(own_endpoint)
    good = request(storage, "pal_25.mp4")
    cases: list[tuple[dict[str, Any], ErrorCode]] = [
        ({**good, "surprise": 1}, ErrorCode.INVALID_REQUEST),
        ({**good, "res_w": 321}, ErrorCode.INVALID_REQUEST),
        ({**good, "source_url": storage.url("missing")}, ErrorCode.SOURCE_UNREACHABLE),
        ({**good, "source_bytes": 10}, ErrorCode.SOURCE_CHANGED),
        ({**good, "source_sha256": "0" * 64}, ErrorCode.SOURCE_CHANGED),
        ({**good, "source_bytes": 2**40}, ErrorCode.SOURCE_TOO_LARGE),
        ({**good, "result_url": "http://127.0.0.1:1/result?X-Signature=topsecret"}, ErrorCode.UPLOAD_FAILED),
    ]
    jobs = [(own_endpoint.run(document), code) for document, code in cases]
    for job_id, code in jobs:
        document = own_endpoint.until_status(job_id)
        assert document["status"] == "FAILED"
        assert parse_error(document["error"])[0] is code, document
        assert "topsecret" not in document["error"]
    text = own_endpoint.until_status(own_endpoint.run(request(storage, "text.mp4")))
    assert parse_error(text["error"])[0] is ErrorCode.SOURCE_UNREADABLE
    assert "manifest.json" not in storage.objects


def test_a_setting_that_cannot_be_used_is_a_clear_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpu_worker"],
        env={"WORKER_ENGINE": "quantum", "PATH": "/usr/bin"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "WORKER_ENGINE is 'quantum'; accepted here are cpu, seedvr2" in done.stderr


def test_a_machine_that_is_not_fit_takes_no_job(
    own_endpoint: EndpointProcess, start_worker: Start, storage: Storage
) -> None:
    worker = start_worker(own_endpoint, WORKER_MIN_SCRATCH_BYTES=str(2**60))
    assert worker.wait() == 1
    assert "WORKER_MIN_SCRATCH_BYTES" in worker.log.read_text()
    job_id = own_endpoint.run(request(storage, "pal_25.mp4"))
    assert own_endpoint.status(job_id)["status"] == "IN_QUEUE"
