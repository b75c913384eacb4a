"""Processes killed with SIGKILL in the middle of a job: a final state, the right money, no orphan, once."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import time
from collections.abc import Iterator

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
    "program", ["seedvr_site worker", "seedvr_site beat", "uvicorn", "gpu_worker.local_endpoint"]
)
def test_a_part_killed_while_a_job_runs_costs_time_only(
    visitor: Visitor, site: Product, program: str
) -> None:
    page = visitor.order(visitor.upload(samples.path("half_minute.mp4")))
    visitor.wait_for(page, "running")
    kill(site, program)
    assert visitor.wait_for(page, *FINAL) == "succeeded"
    check_books(site, page, visitor)


def test_a_killed_gpu_worker_costs_one_try(visitor: Visitor, site: Product) -> None:
    page = visitor.order(visitor.upload(samples.path("half_minute.mp4")))
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
    page = visitor.order(visitor.upload(samples.path("half_minute.mp4")))
    visitor.wait_for(page, "running")
    wait_until(
        lambda: any("gpu_worker.rank" in p.command for p in descendants(site.process.pid)),
        seconds=20,
        otherwise=lambda: AssertionError("no restoring process"),
    )
    kill(site, "gpu_worker.rank")
    assert visitor.wait_for(page, *FINAL) == "succeeded"
    check_books(site, page, visitor)
