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
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import websockets
from django.core.management import call_command

from tests import samples
from tests.services.product import ROOT, Product, product
from tests.services.smtp import mailbox
from tests.services.valkey import valkey
from tests.services.visitor import Visitor

ORDERS = 5
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
            visitor.close()
    medians = {name: statistics.median(order[name] for order in orders) for name in orders[0]}
    return {"first start, seconds": first, "second start, seconds": second, **uploaded, **medians}


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
    submitted_at, finished_at, frames, seconds = _row(site, page)
    return {
        "click to page, seconds": answered_at - clicked_at,
        "click to IN_QUEUE at the endpoint, seconds": submitted_at - clicked_at,
        "final state to browser, seconds": told_at - finished_at,
        "CPU engine at 720p, frames per second": frames / seconds,
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


def _row(site: Product, page: str) -> tuple[float, float, int, float]:
    restoration = page.rstrip("/").rpartition("/")[2].replace("-", "")
    with sqlite3.connect(f"file:{site.var_dir}/db.sqlite3?mode=ro", uri=True) as database:
        [(submitted, finished, manifest)] = database.execute(
            "SELECT a.submitted_at, r.status_at, r.manifest FROM restorations_restoration r"
            " JOIN restorations_attempt a ON a.restoration_id = r.id WHERE r.id = ?",
            [restoration],
        )
    made = json.loads(manifest)
    moments = [
        dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() for text in (submitted, finished)
    ]
    return moments[0], moments[1], made["num_frames"], made["seconds_restore"]


def measure_pages(folder: Path) -> Figures:
    """Counts the queries of each page with few and with many rows, on a database of its own."""
    os.environ |= {"VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.test"}
    with valkey(folder) as address:
        os.environ["REDIS_URL"] = address
        import django

        django.setup()
        call_command("migrate", verbosity=0)
        from tests.benchmarks.money import measure_money

        return _count_queries() | measure_money()


def _count_queries() -> Figures:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from accounts.workspaces import personal_workspace
    from tests.factories import RestorationFactory, UserFactory

    user = UserFactory()
    workspace = personal_workspace(user)
    RestorationFactory.create_batch(200, video__workspace=workspace)
    restoration = RestorationFactory(video__workspace=workspace)
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(user)
    pages = {
        "workspace": workspace.get_absolute_url(),
        "list": f"{workspace.get_absolute_url()}restorations/",
        "restoration": restoration.get_absolute_url(),
        "video": restoration.video.get_absolute_url(),
        "credits": f"{workspace.get_absolute_url()}credits/",
    }
    figures: Figures = {}
    for name, path in pages.items():
        client.get(path)
        with CaptureQueriesContext(connection) as queries:
            seconds, answer = _timed(lambda path=path: client.get(path))
        assert answer.status_code == 200, (path, answer.status_code)
        figures[f"page '{name}', queries"] = len(queries)
        figures[f"page '{name}', milliseconds"] = seconds * 1000
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
        figures = measure_product(Path(first)) | measure_pages(Path(second))
    print(table(figures))
    if arguments.save:
        save(figures)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
