"""How watching grows: one poller with thousands of jobs in flight, and one web process with a thousand sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import websockets
from django.test import override_settings

from seedvr_site.supervisor.parts import socket_path
from tests.benchmarks.product_rows import finished_at
from tests.gpu_worker.processes import KEY, EndpointProcess
from tests.services.product import ROOT, Product
from tests.services.visitor import Visitor

JOBS = (100, 1_000, 5_000)
#: Long enough for each of 5,000 jobs to have its turn.
WATCH_SECONDS = 45
SWEEP_SECONDS = 1.5  # beat's
SOCKETS = 1_000

Figures = dict[str, float]


def measure_poller(folder: Path) -> Figures:
    """Returns the poller's figures at each number of jobs in flight; needs a set-up database."""
    server = EndpointProcess(folder, "--poll-seconds", "1")
    figures: Figures = {}
    try:
        with override_settings(
            RUNPOD_BASE_URL=f"http://127.0.0.1:{server.port}/v2",
            RUNPOD_ENDPOINT_ID="local",
            RUNPOD_API_KEY=KEY,
        ):
            for number in JOBS:
                _fill(server, number)
                figures |= {f"{number} jobs in flight: {name}": value for name, value in _watch().items()}
    finally:
        server.close()
    return figures


def _fill(server: EndpointProcess, number: int) -> None:
    """Brings the jobs in flight to this number, as fast as RunPod takes them (1,000 in ten seconds)."""
    from restorations.models import Attempt
    from tests.factories import AttemptFactory, RestorationFactory

    missing = number - Attempt.objects.filter(status=Attempt.Status.IN_FLIGHT).count()
    restoration = RestorationFactory(status="submitted")
    attempts = []
    for count in range(missing):
        answer = server.http.post("/v2/local/run", json={"input": {"number": count}})
        while answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            time.sleep(float(answer.headers["retry-after"]))
            answer = server.http.post("/v2/local/run", json={"input": {"number": count}})
        job = answer.json()["id"]
        attempts.append(AttemptFactory.build(restoration=restoration, number=count + 1, runpod_id=job))
    Attempt.objects.bulk_create(attempts, batch_size=500)


def _watch() -> Figures:
    """Sweeps for a while as beat would, with somebody looking at one restoration that has one job."""
    from django.core.cache import cache

    from restorations import dispatch, watching
    from restorations.models import Attempt

    cache.clear()
    Attempt.objects.update(look_pause=watching.UNWATCHED)
    # All attempts of the bench share few restorations; the one that is watched is given its own.
    watched = _watched_attempt()
    watching.note_restoration(watched.restoration_id)
    looks: dict[int, list[float]] = defaultdict(list)
    seconds, pauses = [], 0
    ends_at = time.monotonic() + WATCH_SECONDS
    while (began_at := time.monotonic()) < ends_at:
        watching.note_restoration(watched.restoration_id)
        asked_before = dict(Attempt.objects.values_list("pk", "last_seen_at"))
        swept_at = time.monotonic()
        pauses += dispatch.watch() == 0
        seconds.append(time.monotonic() - swept_at)
        for pk, seen_at in Attempt.objects.values_list("pk", "last_seen_at"):
            if seen_at != asked_before[pk]:
                looks[pk].append(swept_at)
        time.sleep(max(0.0, SWEEP_SECONDS - (time.monotonic() - began_at)))
    calls = sum(len(moments) for moments in looks.values())
    return {
        "sweep, median seconds": statistics.median(seconds),
        "sweep, longest seconds": max(seconds),
        "status calls in 10 seconds (RunPod takes 2000)": calls / WATCH_SECONDS * 10,
        "sweeps that were refused or idle": pauses,
        "jobs never asked about": Attempt.objects.filter(status="in_flight").count() - len(looks),
        "watched job, longest pause in seconds": _longest_pause(looks[watched.pk]),
        "other jobs, longest pause in seconds": max(
            (_longest_pause(moments) for pk, moments in looks.items() if pk != watched.pk), default=0.0
        ),
    }


def _watched_attempt() -> Any:
    from restorations.models import Attempt
    from tests.factories import RestorationFactory

    attempt = Attempt.objects.filter(status="in_flight").latest("pk")
    Attempt.objects.filter(pk=attempt.pk).update(restoration=RestorationFactory(status="submitted"))
    attempt.refresh_from_db()
    return attempt


def _longest_pause(moments: list[float]) -> float:
    return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)


# --- Sockets ------------------------------------------------------------------------------------------------


def measure_sockets(site: Product, visitor: Visitor, video: str) -> Figures:
    """Opens a thousand pages' sockets on the product's web process: 999 for orders that wait, one that ends.

    Then every one of the thousand changes at the same moment, which is more than a poller's sweep can bring.
    """
    _raise_file_limit()
    video_id = video.rstrip("/").rpartition("/")[2]
    waiting = _manage(site, _ORDER, str(SOCKETS - 1), video_id).split()
    return asyncio.run(_listen(site, visitor, video, waiting))


#: Run by the product's own manage.py: orders that nothing works on, and a hint about each.
_ORDER = """
import sys
from restorations.models import Restoration, Video
video = Video.objects.get(pk=sys.argv[2])
rows = [
    Restoration(video=video, workspace=video.workspace, status="submitted", preset="720p", res_w=960, res_h=720,
                sp_size=1, seed=1, price_credits=1, num_frames=100) for _ in range(int(sys.argv[1]))
]
print(*(row.pk for row in Restoration.objects.bulk_create(rows)))
"""
_HINT = """
from restorations import notifications
from restorations.models import Restoration
for row in Restoration.objects.filter(status="submitted"):
    notifications.restoration_changed(row)
"""


def _manage(site: Product, script: str, *arguments: str) -> str:
    program = f"import sys; sys.argv[1:] = {list(arguments)!r}\n{script}"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.dev",
        "VAR_DIR": str(site.var_dir),
        "REDIS_URL": f"unix://{socket_path(site.var_dir)}",
    }
    command = [sys.executable, "manage.py", "shell", "--no-imports", "--command", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def _raise_file_limit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


async def _listen(site: Product, visitor: Visitor, video: str, waiting: list[str]) -> Figures:
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.http.cookies.jar)
    headers = {"Cookie": cookies, "Origin": site.url}
    gate = asyncio.Semaphore(50)

    async with contextlib.AsyncExitStack() as stack:

        async def connect(page: str) -> websockets.ClientConnection:
            address = f"{site.url.replace('http', 'ws', 1)}/ws{page}"
            options: Any = {
                "additional_headers": headers,
                "max_size": None,
                "proxy": None,
                "open_timeout": 120,
            }
            async with gate:
                opened = await stack.enter_async_context(websockets.connect(address, **options))
                await opened.recv()  # what changed between page and socket
                return opened

        began_at = time.monotonic()
        pages = [f"{visitor.home}restorations/{restoration_id}/" for restoration_id in waiting]
        sockets = await asyncio.gather(*(connect(page) for page in pages))
        opened = time.monotonic() - began_at
        page = await asyncio.to_thread(visitor.order, video)
        told_at = await _told_at(await connect(page))
        ended_at = finished_at(site, UUID(page.rstrip("/").rpartition("/")[2]))
        hinted_at = time.monotonic()
        await asyncio.gather(asyncio.to_thread(_manage, site, _HINT), *(one.recv() for one in sockets))
        all_told = time.monotonic() - hinted_at
    return {
        f"{SOCKETS} sockets on one web process: seconds to open all": opened,
        f"{SOCKETS} sockets: final state of one to its browser, seconds": told_at - ended_at,
        f"{SOCKETS} sockets: all change at once, seconds until all are told": all_told,
    }


async def _told_at(socket: websockets.ClientConnection) -> float:
    async for message in socket:
        if 'data-state="succeeded-' in str(message):
            return time.time()
    raise RuntimeError("the socket closed before the end")
