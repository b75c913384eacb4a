"""A worker whose handler returns whatever its job asks for: one row of RunPod's table of results each.

Run by tests through the unmodified SDK: `python -m tests.gpu_worker.table_handler [generator]`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import runpod


async def handle(job: dict[str, Any]) -> Any:
    """Does what `input.do` says, or returns `input.value`."""
    wish = job["input"]
    match wish.get("do"):
        case "raise":
            raise RuntimeError("handler broke")
        case "exit":
            os._exit(3)
        case "set":
            return {"not": {"json"}}
        case "nan":
            return {"value": float("nan")}
        case "large":
            return {"value": "x" * wish["bytes"]}
        case "progress":
            runpod.serverless.progress_update(job, {"half": True})
            await asyncio.sleep(1)
            return {"value": 1}
        case "sleep":
            await asyncio.sleep(wish["seconds"])
            return {"slept": wish["seconds"]}
    return wish["value"]


async def generate(job: dict[str, Any]) -> AsyncIterator[Any]:
    """Yields the items of `input.values`."""
    for value in job["input"]["values"]:
        if value == "raise":
            raise RuntimeError("generator broke")
        yield value


if __name__ == "__main__":
    is_generator = sys.argv[1:] == ["generator"]
    # The SDK reads the command line too.
    del sys.argv[1:]
    runpod.serverless.start(
        {"handler": generate if is_generator else handle, "return_aggregate_stream": True}
    )
