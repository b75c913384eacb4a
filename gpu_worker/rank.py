"""What each rank process runs: joins the group, loads the engine, says READY, and serves one request at a time.

The parent starts ranks once and keeps them warm. Variables: `WORKER_CONTROL` (the parent's socket),
`WORKER_ENGINE`, `WORKER_MODEL`, `WORKER_MODEL_DIR`, and torchrun's RANK, WORLD_SIZE and LOCAL_RANK.

    rank -> parent   {"hello": rank, "pid": ...}, then {"ready": {...}}
    parent -> rank   {"number": 1, "job": EngineJob} or {"number": 2, "join": JoinJob}, {"cancel": 1}
    rank -> parent   {"number": 1, "frames": 12}, {"number": 1, "segment": SegmentSpan, "path": ...}
    rank -> parent   {"number": 1, "done": ...} or "error" or "cancelled"; each with "kept_bytes"

`kept_bytes` is the memory that the request did not give back.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

from gpu_worker.contract import ErrorCode, Output, WorkerError
from gpu_worker.engine.formats import encoder_fingerprint
from gpu_worker.engine.job import Cancelled, Done, EngineJob, JoinJob
from gpu_worker.engine.joining import join_result
from gpu_worker.engine.lifeline import die_with_parent
from gpu_worker.engine.work import Engine, load, run
from gpu_worker.rank_link import Link, RankEvents

logger = logging.getLogger(__name__)

#: What decides about the pixels of a segment: its sources are part of each journal's fingerprint.
_PIXELS: Final = ("engine", "models", "diffusion", "kernels", "parallel")


def main() -> int:
    """Serves requests until the parent goes away."""
    die_with_parent(os.getppid())
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    rank = int(os.environ.get("RANK", "0"))
    link = Link(os.environ["WORKER_CONTROL"])
    link.send({"hello": rank, "pid": os.getpid()})
    try:
        engine = _load(rank)
    except (WorkerError, OSError, ValueError, RuntimeError) as error:
        # The parent says why no job can be done here; a traceback says where.
        logger.exception("the engine cannot be loaded")
        link.send({"unfit": " ".join(f"{type(error).__name__}: {error}".split())[:500]})
        return 1
    ready = {
        "cold_start": dict(engine.cold_start),
        "gpu_name": engine.gpu_name,
        "revision": revision(),
    }
    used_bytes = memory_in_use() - engine.held_bytes
    link.send({"ready": ready})
    while True:
        request = link.requests.get()
        answer = _answer(request, engine, rank, RankEvents(link, request["number"]))
        kept_bytes = memory_in_use() - engine.held_bytes - used_bytes
        link.send({"number": request["number"], **answer, "kept_bytes": kept_bytes})


def _load(rank: int) -> Engine:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    folder = os.environ.get("WORKER_MODEL_DIR")
    return load(
        os.environ["WORKER_ENGINE"],
        model=os.environ.get("WORKER_MODEL", ""),
        weights=Path(folder) if folder else None,
        rank=rank,
        world=world,
        local_rank=local_rank,
    )


def _answer(request: dict[str, Any], engine: Engine, rank: int, events: RankEvents) -> dict[str, Any]:
    """Does what a request asks for and returns the last word on it; nothing of it is held afterwards."""
    try:
        if "join" in request:
            return {
                "done": join_result(JoinJob.from_json(request["join"]), lambda _: events.check()).to_json()
            }
        return {"done": _work(EngineJob.from_json(request["job"]), engine, rank, events).to_json()}
    except Cancelled:
        return {"cancelled": True}
    except WorkerError as error:
        return {"error": {"code": error.code.value, "detail": error.detail}}
    except MemoryError:
        return {"error": {"code": ErrorCode.OUT_OF_MEMORY.value, "detail": "no memory on the host"}}
    except Exception as error:
        # A defect of ours: the traceback is for the log.
        logger.exception("request broke off")
        detail = f"unexpected {type(error).__name__}"
        return {"error": {"code": ErrorCode.ENGINE_FAILED.value, "detail": detail}}


def _work(job: EngineJob, engine: Engine, rank: int, events: RankEvents) -> Done:
    return run(job, engine, rank=rank, world=int(os.environ.get("WORLD_SIZE", "1")), events=events)


def memory_in_use() -> int:
    """Bytes that this process holds on its GPU, or in the host's memory where it has none."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        return int(torch.cuda.memory_allocated())
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        # What is free in the C library's hands is no leak.
        trim(0)
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return num_pages * os.sysconf("SC_PAGE_SIZE")


def revision() -> str:
    """Returns a text that changes with whatever decides about the pixels: our sources, encoders, PyTorch."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for folder in _PIXELS:
        for path in sorted((package / folder).glob("*.py")):
            digest.update(f"{folder}/{path.name}\n".encode())
            digest.update(path.read_bytes())
    versions = [encoder_fingerprint(output) for output in Output]
    torch = sys.modules.get("torch")
    versions.append(torch.__version__ if torch is not None else "")
    digest.update(" ".join(versions).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
