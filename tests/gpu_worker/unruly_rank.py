"""A rank that does what no engine should: the job's model says what. Run as `python -m tests.gpu_worker.unruly_rank`.

It speaks to the parent through the worker's own link.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gpu_worker.engine.job import Cancelled, Done, EngineJob, SegmentSpan
from gpu_worker.engine.lifeline import die_with_parent
from gpu_worker.rank_link import Link, RankEvents

NUM_FRAMES = 30
SPANS = (SegmentSpan(index=0, start=0, end=20), SegmentSpan(index=1, start=20, end=NUM_FRAMES))


def work(job: EngineJob, events: RankEvents, rank: int) -> Done:
    """Misbehaves as the model says; `good` makes two segments."""
    match job.model.removesuffix(f"@{rank}"):
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crashed":
            sys.stderr.write("something broke\n")
            sys.stderr.flush()
            os._exit(3)
        case "stuck":
            time.sleep(600)
        case "deaf":
            while True:
                time.sleep(0.05)
                try:
                    events.check()
                except Cancelled:
                    continue
        case "endless":
            for number in range(10**6):
                events.frames(number)
                events.check()
                time.sleep(0.02)
        case "different":
            return Done(segments=SPANS[:1], num_frames=20)
    for span in SPANS:
        if span not in job.done:
            path = job.folder / f"{span.index:05d}.mp4"
            path.write_bytes(b"segment")
            events.segment(span, path, None)
    return Done(segments=SPANS, num_frames=NUM_FRAMES, seconds={"decode": 1.0 + rank})


def main() -> None:
    """Serves until the parent goes away."""
    die_with_parent(os.getppid())
    rank = int(os.environ.get("RANK", "0"))
    link = Link(os.environ["WORKER_CONTROL"])
    link.send({"hello": rank, "pid": os.getpid()})
    starts = Path(os.environ.get("STARTS", os.devnull))
    with starts.open("a") as file:
        file.write("x")
    if "UNFIT" in os.environ:
        link.send({"unfit": "there is no GPU"})
        return
    link.send({"ready": {"cold_start": {}, "gpu_name": "", "revision": "1"}})
    while True:
        request = link.requests.get()
        number = request["number"]
        job = EngineJob.from_json(request["job"])
        kept_bytes = 2**40 if job.model == "greedy" else 0
        try:
            done = work(job, RankEvents(link, number), rank)
        except Cancelled:
            link.send({"number": number, "cancelled": True, "kept_bytes": kept_bytes})
        else:
            link.send({"number": number, "done": done.to_json(), "kept_bytes": kept_bytes})


if __name__ == "__main__":
    main()
