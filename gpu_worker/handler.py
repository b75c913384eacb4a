"""The RunPod edge: one job's way through validation, download, restoration, upload and report.

Input: a `RestoreRequest` as JSON. Progress: `Progress` as JSON. Output: a `Manifest` as JSON, uploaded to the
request's `manifest_url` before it is returned, because RunPod can lose what a worker returns. Failure:
`{"error": "<code>: <detail>"}`, never a traceback. A job that is delivered twice is done twice; both write
the same names.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from gpu_worker.contract import ContractError, ErrorCode, Manifest, RestoreRequest, Stage, WorkerError
from gpu_worker.engine_process import EngineReport, cpu_command, run_engine
from gpu_worker.progress import ProgressReporter, SendProgress, sending
from gpu_worker.scratch import Scratch
from gpu_worker.settings import WorkerSettings
from gpu_worker.transfer import Transfers, sha256_of

logger = logging.getLogger(__name__)

#: A job as the SDK gives it: at least `id` and `input`.
Job = dict[str, Any]
Handler = Callable[[Job], Awaitable[dict[str, Any]]]

_RESULT_TYPE: Final = "video/mp4"
_MANIFEST_TYPE: Final = "application/json"


def make_handler(
    settings: WorkerSettings, *, scratch: Scratch, send_progress: Callable[[Job], SendProgress]
) -> Handler:
    """Returns the handler for `runpod.serverless.start`; `send_progress` gives each job its sender."""

    async def handle(job: Job) -> dict[str, Any]:
        try:
            request = RestoreRequest.from_json(job.get("input"))
            manifest = await _restore(request, settings, scratch, send_progress(job))
        except ContractError as error:
            return _failure(WorkerError(ErrorCode.INVALID_REQUEST, str(error)))
        except WorkerError as error:
            return _failure(error)
        except Exception as error:
            # A defect of ours: the traceback is for the log, RunPod would show it to the client.
            logger.exception("job broke off")
            return _failure(WorkerError(ErrorCode.ENGINE_FAILED, f"unexpected {type(error).__name__}"))
        return manifest.to_json()

    return handle


async def _restore(
    request: RestoreRequest, settings: WorkerSettings, scratch: Scratch, send: SendProgress
) -> Manifest:
    """Does the job's work in order; whatever ends it, its files and processes are gone afterwards."""
    reporter = ProgressReporter(
        attempt_id=request.attempt_id,
        num_frames=request.num_frames,
        send=send,
        pause_seconds=settings.progress_seconds,
    )
    transfers = Transfers(settings)
    try:
        with scratch.job() as directory:
            async with sending(reporter):
                return await _steps(request, settings, transfers, directory, reporter)
    finally:
        await transfers.close()


async def _steps(
    request: RestoreRequest,
    settings: WorkerSettings,
    transfers: Transfers,
    directory: Path,
    reporter: ProgressReporter,
) -> Manifest:
    source, result = directory / "source", directory / "result.mp4"
    started_at = time.monotonic()
    reporter.report(Stage.DOWNLOADING)
    await transfers.download(
        request.source_url, source, num_bytes=request.source_bytes, sha256=request.source_sha256
    )
    downloaded_at = time.monotonic()
    reporter.report(Stage.RESTORING)
    command = cpu_command(source, result, width=request.res_w, height=request.res_h)
    report = await run_engine(command, lambda num_frames: reporter.report(Stage.RESTORING, num_frames))
    restored_at = time.monotonic()
    reporter.report(Stage.UPLOADING, report.num_frames)
    await transfers.upload_file(request.result_url, result, content_type=_RESULT_TYPE)
    manifest = _manifest(
        request,
        settings,
        report,
        result_bytes=result.stat().st_size,
        result_sha256=await asyncio.to_thread(sha256_of, result),
        seconds={
            "download": round(downloaded_at - started_at, 3),
            "restore": round(restored_at - downloaded_at, 3),
            "upload": round(time.monotonic() - restored_at, 3),
        },
    )
    # Last of all: its presence proves that the result is whole.
    document = json.dumps(manifest.to_json()).encode()
    await transfers.upload_bytes(request.manifest_url, document, content_type=_MANIFEST_TYPE)
    return manifest


def _manifest(
    request: RestoreRequest,
    settings: WorkerSettings,
    report: EngineReport,
    *,
    result_bytes: int,
    result_sha256: str,
    seconds: dict[str, float],
) -> Manifest:
    return Manifest(
        attempt_id=request.attempt_id,
        engine=settings.engine,
        model="",
        output=request.output,
        media_type=_RESULT_TYPE,
        bit_depth=8,
        result_bytes=result_bytes,
        result_sha256=result_sha256,
        width=report.width,
        height=report.height,
        num_frames=report.num_frames,
        frame_rate=report.frame_rate,
        duration_seconds=report.duration_seconds,
        num_audio_tracks=report.num_audio_tracks,
        num_audio_tracks_lost=report.num_audio_tracks_lost,
        seed=request.seed,
        seconds=seconds,
    )


def _failure(error: WorkerError) -> dict[str, Any]:
    # RunPod takes only a non-empty text as an error; a line is enough for operators.
    logger.warning("job failed: %s", error)
    return {"error": " ".join(str(error).split())}
