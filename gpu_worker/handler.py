"""The RunPod edge: one job's way through validation, download, restoration, join, upload and report.

Input: a `RestoreRequest` as JSON. Progress: `Progress` as JSON. Output: a `Manifest` as JSON, uploaded to the
request's `manifest_url` before it is returned, because RunPod can lose what a worker returns. Failure:
`{"error": "<code>: <detail>"}`, never a traceback. A job that is delivered twice goes on after the segments that
the first delivery finished; both write the same names.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gpu_worker.contract import (
    ContractError,
    Engine,
    ErrorCode,
    Manifest,
    RestoreRequest,
    SegmentPlan,
    Stage,
    WorkerError,
)
from gpu_worker.engine.job import SEGMENT_FRAMES, Done, EngineJob, JoinJob, JoinReport, SegmentSpan
from gpu_worker.kept_segments import KeptSegments, fingerprint
from gpu_worker.progress import ProgressReporter, SendProgress, sending
from gpu_worker.scratch import Scratch
from gpu_worker.settings import WorkerSettings
from gpu_worker.supervisor import Supervisor
from gpu_worker.transfer import Transfers, sha256_of

logger = logging.getLogger(__name__)

#: A job as the SDK gives it: at least `id` and `input`.
Job = dict[str, Any]
Handler = Callable[[Job], Awaitable[dict[str, Any]]]

_MANIFEST_TYPE: Final = "application/json"
#: Segments of an earlier worker can turn out to be broken while the rest is made: then those are made as well.
_ROUNDS: Final = 2


def make_handler(
    settings: WorkerSettings,
    *,
    scratch: Scratch,
    supervisor: Supervisor,
    send_progress: Callable[[Job], SendProgress],
) -> Handler:
    """Returns the handler for `runpod.serverless.start`; `send_progress` gives each job its sender."""

    async def handle(job: Job) -> dict[str, Any]:
        try:
            request = RestoreRequest.from_json(job.get("input"))
            async with _course(request, settings, scratch, supervisor, send_progress(job)) as course:
                manifest = await course.run()
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


@asynccontextmanager
async def _course(
    request: RestoreRequest,
    settings: WorkerSettings,
    scratch: Scratch,
    supervisor: Supervisor,
    send: SendProgress,
) -> AsyncIterator[_Course]:
    """Yields a job's course; whatever ends it, its files and connections are gone afterwards."""
    reporter = ProgressReporter(
        attempt_id=request.attempt_id,
        num_frames=request.num_frames if request.range is None else request.range[1] - request.range[0],
        send=send,
        pause_seconds=settings.progress_seconds,
    )
    transfers = Transfers(settings)
    try:
        with scratch.job() as folder:
            async with sending(reporter):
                yield _Course(request, settings, supervisor, transfers, reporter, folder)
    finally:
        await transfers.close()


@dataclass
class _Course:
    """One job on its way, step by step; each step's wall-clock seconds are noted."""

    request: RestoreRequest
    settings: WorkerSettings
    supervisor: Supervisor
    transfers: Transfers
    reporter: ProgressReporter
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    async def run(self) -> Manifest:
        """Does the job's work in order. Raises `WorkerError`."""
        request = self.request
        with self._timed("download"):
            self.reporter.report(Stage.DOWNLOADING)
            source_sha256 = await self._download()
        group = await self.supervisor.ready()
        kept = KeptSegments(self.transfers, request.segments, self.folder)
        await kept.open(
            fingerprint(
                request, source_sha256=source_sha256, model=self._model, revision=group.ready["revision"]
            )
        )
        with self._timed("restore"):
            async with kept.storing():
                done = await self._restore(kept)
        with self._timed("join"):
            self._report(Stage.JOINING, done.num_frames, len(done.segments), len(done.segments))
            report = await self._join(kept, done)
        with self._timed("upload"):
            self._report(Stage.UPLOADING, done.num_frames, len(done.segments), len(done.segments))
            result_sha256 = await self._upload(report)
        gpu_name = str(group.ready.get("gpu_name", ""))
        manifest = self._manifest(
            done,
            report,
            num_reused=kept.num_reused(done.segments),
            result_sha256=result_sha256,
            gpu_name=gpu_name,
        )
        # Last of all: its presence proves that the result is whole.
        document = json.dumps(manifest.to_json()).encode()
        await self.transfers.upload_bytes(request.manifest_url, document, content_type=_MANIFEST_TYPE)
        return manifest

    @property
    def _source(self) -> Path:
        return self.folder / "source"

    @property
    def _model(self) -> str:
        """The checkpoint that works here."""
        if self.settings.engine is Engine.CPU:
            return ""
        return self.settings.model if self.settings.is_tiny else self.request.model.value

    async def _download(self) -> str:
        return await self.transfers.download(
            self.request.source_url,
            self._source,
            num_bytes=self.request.source_bytes,
            sha256=self.request.source_sha256,
        )

    async def _restore(self, kept: KeptSegments) -> Done:
        """Makes what is missing while the segments of earlier workers come in; returns what there is to join."""
        fetching = asyncio.create_task(kept.fetch())
        try:
            for _round in range(_ROUNDS):
                done = await self._make(kept)
                await fetching
                missing = [span for span in done.segments if not kept.has(span)]
                if not missing:
                    return done
        finally:
            fetching.cancel()
            await asyncio.wait({fetching})
        raise WorkerError(ErrorCode.ENGINE_FAILED, f"segment {missing[0].index} was not made")

    async def _make(self, kept: KeptSegments) -> Done:
        there = kept.spans
        num_before, num_finished = sum(span.num_frames for span in there), len(there)

        def on_frames(num_frames: int) -> None:
            num_done = num_before + num_frames
            self._report(Stage.RESTORING, num_done, num_finished, self._expected(num_done, num_finished))

        def on_segment(span: SegmentSpan, path: Path, plan: SegmentPlan | None) -> None:
            nonlocal num_finished
            num_finished += 1
            kept.add(span, path, plan)

        def on_expected(num_frames: int) -> None:
            # The site counts what the file holds; of telecined film less comes out.
            self.reporter.num_frames = num_frames

        on_frames(0)
        job = self._job(there, kept.plan)
        return await self.supervisor.restore(
            job, on_frames=on_frames, on_segment=on_segment, on_expected=on_expected
        )

    def _job(self, there: tuple[SegmentSpan, ...], plan: SegmentPlan | None) -> EngineJob:
        request = self.request
        return EngineJob(
            source=self._source,
            folder=self.folder,
            model=self._model,
            width=request.res_w,
            height=request.res_h,
            seed=request.seed,
            strength=request.strength,
            color_fix=request.color_fix,
            output=request.output,
            sp_size=request.sp_size,
            segment_frames=self._segment_frames,
            span=request.range,
            pins=request.pins,
            done=there,
            memory_gib=self.settings.memory_gib,
            plan=plan,
        )

    @property
    def _segment_frames(self) -> int:
        return SEGMENT_FRAMES if self.request.segments is None else self.request.segments.frames

    def _expected(self, num_done: int, num_finished: int) -> int | None:
        """Segments in all, as far as it can be known before the video has been read."""
        if (num_frames := self.reporter.num_frames) is None:
            return None
        left = max(0, num_frames - num_done)
        return max(1, num_finished + -(-left // self._segment_frames))

    def _report(self, stage: Stage, num_frames: int, num_finished: int, num_segments: int | None) -> None:
        self.reporter.report(stage, num_frames, num_segments_done=num_finished, num_segments=num_segments)

    async def _join(self, kept: KeptSegments, done: Done) -> JoinReport:
        return await self.supervisor.join(
            JoinJob(
                source=self._source,
                result=self.folder / "result",
                segments=kept.paths(done.segments),
                width=self.request.res_w,
                height=self.request.res_h,
                output=self.request.output,
                span_ticks=done.span_ticks,
            )
        )

    async def _upload(self, report: JoinReport) -> str:
        """Puts the result into storage and returns its SHA-256."""
        result, parts = Path(report.path), self.request.result_parts
        if parts is not None and result.stat().st_size > parts.part_bytes:  # noqa: ASYNC240 - a local disk
            await self.transfers.upload_parts(parts, result)
        else:
            await self.transfers.upload_file(self.request.result_url, result, content_type=report.media_type)
        return await asyncio.to_thread(sha256_of, result)

    def _manifest(
        self, done: Done, report: JoinReport, *, num_reused: int, result_sha256: str, gpu_name: str
    ) -> Manifest:
        measured = report.to_json()
        return Manifest.from_json(
            {
                **{name: value for name, value in measured.items() if name != "path"},
                "attempt_id": self.request.attempt_id,
                "engine": self.settings.engine.value,
                "model": self._model,
                "seed": self.request.seed,
                "output": self.request.output.value,
                "result_bytes": Path(report.path).stat().st_size,
                "result_sha256": result_sha256,
                "segments_made": len(done.segments) - num_reused,
                "segments_reused": num_reused,
                "seconds": {**done.seconds, **self.seconds},
                "bottleneck": done.bottleneck,
                "gpus": self.settings.num_gpus if gpu_name else 0,
                "gpu_name": gpu_name,
            }
        )

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started_at = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - started_at, 3)


def _failure(error: WorkerError) -> dict[str, Any]:
    # RunPod takes only a non-empty text as an error; a line is enough for operators.
    logger.warning("job failed: %s", error)
    return {"error": " ".join(str(error).split())}
