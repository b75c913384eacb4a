"""Processes killed with SIGKILL in the middle of a job: a final state, the right money, no orphan, once."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from tests import samples
from tests.services.process_table import descendants, still_running
from tests.services.processes import wait_until
from tests.services.product import Product, product
from tests.services.smtp import Mailbox, mailbox
from tests.services.visitor import FINAL, Visitor

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def mails() -> Iterator[Mailbox]:
    with mailbox() as box:
        yield box


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mails: Mailbox) -> Iterator[Product]:
    environment = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(mails.port)}
    with product(tmp_path_factory.mktemp("var"), environment=environment) as running:
        yield running


@pytest.fixture
def visitor(site: Product, mails: Mailbox) -> Iterator[Visitor]:
    visitor = Visitor(site, mails, f"visitor{next(_numbers)}@example.com")
    yield visitor
    visitor.close()


def kill(site: Product, program: str) -> None:
    """Kills every process of a program below the supervisor, at once and without a word."""
    victims = [process for process in descendants(site.process.pid) if program in process.command]
    assert victims, program
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: not still_running(victims), seconds=5, otherwise=lambda: AssertionError(victims))


def rows(site: Product, query: str, *values: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{site.var_dir}/db.sqlite3?mode=ro", uri=True) as database:
        return database.execute(query, values).fetchall()


def check_books(site: Product, page: str, visitor: Visitor) -> None:
    """One charge, at most one refund, one mail, and exactly one attempt that succeeded, if any did."""
    restoration = page.rstrip("/").rpartition("/")[2].replace("-", "")
    [(status, price, refunded)] = rows(
        site,
        "SELECT status, price_credits, refunded_credits FROM restorations_restoration WHERE id = ?",
        restoration,
    )
    assert visitor.credits == 300 - int(str(price)) + int(str(refunded))
    assert refunded == (0 if status == "succeeded" else price)
    attempts = [
        s
        for (s,) in rows(
            site, "SELECT status FROM restorations_attempt WHERE restoration_id = ?", restoration
        )
    ]
    assert attempts.count("succeeded") == (1 if status == "succeeded" else 0)
    assert not {"sending", "in_flight"} & set(attempts)


@pytest.mark.parametrize(
    "program",
    ["seedvr_site worker", "seedvr_site beat", "uvicorn", "gpu_worker.local_endpoint", "valkey-server"],
)
def test_a_part_killed_while_a_job_runs_costs_time_only(
    visitor: Visitor, site: Product, program: str
) -> None:
    page = visitor.order(visitor.upload(samples.path("quarter_minute.mp4")))
    visitor.wait_for(page, "running")
    kill(site, program)
    assert visitor.wait_for(page, *FINAL) == "succeeded"
    check_books(site, page, visitor)


def test_a_cancelled_job_keeps_what_is_finished(visitor: Visitor, site: Product) -> None:
    page = visitor.order(visitor.upload(samples.path("half_minute.mp4")))
    visitor.wait_for(page, "running")
    wait_until(
        lambda: re.search(r"[1-4] of about \d parts", visitor.http.get(page).text),
        seconds=60,
        otherwise=lambda: AssertionError("no part is finished"),
    )
    visitor.post(f"{page}cancel/")
    wait_until(
        lambda: "Download the finished part" in visitor.http.get(page).text,
        seconds=30,
        otherwise=lambda: AssertionError("there is no finished part"),
    )
    part = visitor.http.get(f"{page}download/").content
    with av.open(io.BytesIO(part)) as video:
        num_frames = sum(1 for _ in video.decode(video=0))
    assert 120 <= num_frames < 599
    assert f"The first {num_frames} of 599 frames" in visitor.http.get(page).text
    restoration = page.rstrip("/").rpartition("/")[2].replace("-", "")
    [(price, refunded)] = rows(
        site,
        "SELECT price_credits, refunded_credits FROM restorations_restoration WHERE id = ?",
        restoration,
    )
    assert visitor.credits == 300 - int(str(price)) + int(str(refunded))
    left = [path for path in site.var_dir.rglob("*") if "segments" in path.parts and path.is_file()]
    assert left == []


def test_a_killed_gpu_worker_costs_one_try(visitor: Visitor, site: Product) -> None:
    page = visitor.order(visitor.upload(samples.path("quarter_minute.mp4")))
    visitor.wait_for(page, "running")
    time.sleep(1)
    kill(site, "-m gpu_worker")
    assert visitor.wait_for(page, *FINAL, seconds=200) == "succeeded"
    check_books(site, page, visitor)


def test_a_celery_worker_killed_right_after_the_order_loses_nothing(visitor: Visitor, site: Product) -> None:
    video = visitor.upload(samples.path("pal_25.mp4"))
    kill(site, "seedvr_site worker")
    page = visitor.order(video)
    assert visitor.wait_for(page, *FINAL) == "succeeded"
    check_books(site, page, visitor)


def test_a_killed_restoring_process_is_tried_again(visitor: Visitor, site: Product) -> None:
    page = visitor.order(visitor.upload(samples.path("quarter_minute.mp4")))
    visitor.wait_for(page, "running")
    wait_until(
        lambda: any("gpu_worker.rank" in p.command for p in descendants(site.process.pid)),
        seconds=20,
        otherwise=lambda: AssertionError("no restoring process"),
    )
    kill(site, "gpu_worker.rank")
    assert visitor.wait_for(page, *FINAL) == "succeeded"
    check_books(site, page, visitor)


# --- Everything, everywhere ---------------------------------------------------------------------------------

SITE = ("seedvr_site worker", "seedvr_site beat", "uvicorn")
#: What the database shows at each step of a job's way; the video's own first.
STEPS = {
    "looked into": "SELECT 1 FROM restorations_video WHERE status = 'inspecting'",
    "ordered": "SELECT 1 FROM restorations_restoration WHERE status = 'queued'",
    "sent": "SELECT 1 FROM restorations_attempt WHERE status = 'in_flight'",
    "running": "SELECT 1 FROM restorations_restoration WHERE status = 'running' AND num_frames_done > 0",
    "saved": "SELECT 1 FROM restorations_restoration WHERE stage IN ('joining', 'uploading') AND status = 'running'",
    "done": "SELECT 1 FROM restorations_restoration WHERE status = 'succeeded' AND finish_mailed_at IS NULL",
}


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", SITE)
@pytest.mark.parametrize("step", STEPS)
def test_each_process_killed_at_each_step(tmp_path: Path, mails: Mailbox, step: str, program: str) -> None:
    environment = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(mails.port)}
    with (
        product(tmp_path, environment=environment) as site,
        contextlib.closing(Visitor(site, mails, f"visitor{next(_numbers)}@example.com")) as visitor,
    ):
        killer = threading.Thread(target=_kill_at, args=(site, program, STEPS[step]))
        killer.start()
        page = visitor.order(visitor.upload(samples.path("half_minute.mp4")), while_away=30)
        # A sender that died is given up after 90 seconds.
        assert visitor.wait_for(page, *FINAL, seconds=300) == "succeeded"
        killer.join(130)
        check_books(site, page, visitor)


def _kill_at(site: Product, program: str, query: str) -> None:
    # Some steps last for a few milliseconds: nothing slower than this meets them.
    address = f"file:{site.var_dir}/db.sqlite3?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        deadline = time.monotonic() + 120
        while not database.execute(query).fetchone() and time.monotonic() < deadline:
            time.sleep(0.001)
    kill(site, program)


# --- Redis and PostgreSQL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.heavy)])
def test_redis_silent_for_a_while_costs_time_only(visitor: Visitor, site: Product, seconds: int) -> None:
    page = visitor.order(visitor.upload(samples.path("quarter_minute.mp4")))
    visitor.wait_for(page, "running")
    servers = [process for process in descendants(site.process.pid) if "valkey-server" in process.command]
    assert servers
    for server in servers:
        os.kill(server.pid, signal.SIGSTOP)
    time.sleep(seconds)
    for server in servers:
        os.kill(server.pid, signal.SIGCONT)
    assert visitor.wait_for(page, *FINAL, seconds=200) == "succeeded"
    check_books(site, page, visitor)
