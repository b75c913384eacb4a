"""Measures what users wait for: `make bench` prints a table and, last, one JSON line.

`python -m tests.benchmarks --save` also files the table under docs/benchmarks/. Figures come from the whole
product as `make run` starts it, with real videos; they are for comparing two runs on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import websockets
from django.core.management import call_command

from tests import samples
from tests.benchmarks.product_rows import order_row
from tests.benchmarks.watching import measure_poller, measure_sockets
from tests.services.product import ROOT, Product, product
from tests.services.smtp import mailbox
from tests.services.valkey import valkey
from tests.services.visitor import Visitor

ORDERS = 5
ROWS = (100, 10_000)
PAGE_LOADS = 40
Figures = dict[str, float]


def measure_product(folder: Path) -> Figures:
    """Starts the product twice, orders a few restorations, and times what a person waits for."""
    with mailbox() as mails:
        environment = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(mails.port)}
        first, _ = _timed(lambda: _start_and_stop(folder, environment))
        started_at = time.monotonic()
        with product(folder, environment=environment) as site:
            second = time.monotonic() - started_at
            visitor = Visitor(site, mails, "bench@example.com")
            video, uploaded = _upload(visitor)
            orders = [_order(site, visitor, video) for _ in range(ORDERS)]
            sockets = measure_sockets(site, visitor, video)
            visitor.close()
    medians = {name: statistics.median(order[name] for order in orders) for name in orders[0]}
    return {"first start, seconds": first, "second start, seconds": second, **uploaded, **medians, **sockets}


def _start_and_stop(folder: Path, environment: dict[str, str]) -> None:
    with product(folder, environment=environment):
        pass


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started_at = time.monotonic()
    value = call()
    return time.monotonic() - started_at, value


def _upload(visitor: Visitor) -> tuple[str, Figures]:
    seconds, page = _timed(lambda: visitor.upload(samples.path("bigbuckbunny.mp4")))
    return page, {"upload and inspect 1 MB, seconds": seconds}


def _order(site: Product, visitor: Visitor, video: str) -> Figures:
    clicked_at = time.time()
    page = visitor.order(video)
    answered_at = time.time()
    told_at = asyncio.run(_told_at(site, visitor, page))
    submitted_at, finished_at, made = order_row(site, UUID(page.rstrip("/").rpartition("/")[2]))
    return {
        "click to page, seconds": answered_at - clicked_at,
        "click to IN_QUEUE at the endpoint, seconds": submitted_at - clicked_at,
        "final state to browser, seconds": told_at - finished_at,
        "CPU engine at 720p, frames per second": made["num_frames"] / made["seconds"]["restore"],
    }


async def _told_at(site: Product, visitor: Visitor, page: str) -> float:
    """Returns when the page's socket said that the restoration has ended."""
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.http.cookies.jar)
    address = f"{site.url.replace('http', 'ws', 1)}/ws{page}"
    headers = {"Cookie": cookies, "Origin": site.url}
    async with websockets.connect(address, additional_headers=headers, max_size=None, proxy=None) as socket:
        async for message in socket:
            if 'data-state="succeeded-' in str(message):
                return time.time()
    raise RuntimeError(f"the socket of {page} closed before the end")


def measure_pages(folder: Path) -> Figures:
    """Measures pages, money and the poller, on a database of its own."""
    os.environ |= {"VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.test"}
    with valkey(folder) as address:
        os.environ["REDIS_URL"] = address
        import django

        django.setup()
        call_command("migrate", verbosity=0)
        from tests.benchmarks.money import measure_money

        return _time_pages() | measure_money() | measure_poller(folder)


def _time_pages() -> Figures:
    """Counts the queries of each page and times the server's work, with few rows and with many."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from accounts.workspaces import personal_workspace
    from restorations.models import Restoration
    from tests.factories import RestorationFactory, UserFactory

    user = UserFactory()
    workspace = personal_workspace(user)
    restoration = RestorationFactory(video__workspace=workspace)
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(user)
    home = workspace.get_absolute_url()
    pages = {
        "workspace": home,
        "list": f"{home}restorations/",
        "list, last page": f"{home}restorations/?page=last",
        "restoration": restoration.get_absolute_url(),
        "video": restoration.video.get_absolute_url(),
        "credits": f"{home}credits/",
    }
    figures: Figures = {}
    for number in ROWS:
        missing = number - Restoration.objects.for_workspace(workspace).count()
        rows = RestorationFactory.build_batch(missing, video=restoration.video, workspace=workspace)
        Restoration.objects.bulk_create(rows, batch_size=500)
        for name, path in pages.items():
            client.get(path)
            with CaptureQueriesContext(connection) as queries:
                answer = client.get(path)
                num_queries = len(queries)
            assert answer.status_code == 200, (path, answer.status_code)
            seconds = sorted(_timed(lambda path=path: client.get(path))[0] for _ in range(PAGE_LOADS))
            what = f"page '{name}' with {number} restorations"
            figures[f"{what}, queries"] = num_queries
            figures[f"{what}, 95th percentile in ms"] = seconds[int(0.95 * PAGE_LOADS)] * 1000
    return figures


def measure_walls() -> Figures:
    """Measures row-level security in a process of its own, whose database is PostgreSQL."""
    command = [sys.executable, "-m", "tests.benchmarks.walls"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    figures: Figures = json.loads(lines[-1])
    return figures


def table(figures: Figures) -> str:
    """Returns the figures as a Markdown table."""
    lines = ["| what | figure |", "| --- | ---: |"]
    lines += [
        f"| {name} | {value:.2f} |" if value % 1 else f"| {name} | {value:.0f} |"
        for name, value in figures.items()
    ]
    return "\n".join(lines)


def save(figures: Figures) -> None:
    """Files the table with the day and the machine."""
    today = dt.datetime.now(dt.UTC).date()
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    heading = (
        f"# What users wait for, {today}\n\n`make bench` on {machine}, Python {platform.python_version()}"
    )
    text = f"{heading}; medians of {ORDERS} orders.\n\n{table(figures)}\n"
    (ROOT / "docs" / "benchmarks" / f"product_cpu_{today}.md").write_text(text)


def main() -> None:
    """Measures, prints, and saves when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="file the table under docs/benchmarks/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        figures = measure_product(Path(first)) | measure_pages(Path(second)) | measure_walls()
    print(table(figures))
    if arguments.save:
        save(figures)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
