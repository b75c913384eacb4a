"""PostgreSQL dies and comes back in the middle of a job: the pages too, and the order ends as if nothing had been."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import samples
from tests.services.postgres import postgres
from tests.services.processes import wait_until
from tests.services.product import Product, product
from tests.services.smtp import Mailbox, mailbox
from tests.services.visitor import FINAL, Visitor

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]


@pytest.fixture
def database() -> Iterator[str]:
    with postgres() as address:
        with psycopg.connect(_of_root(address), autocommit=True) as root:
            root.execute("CREATE DATABASE product OWNER site")
        yield urlsplit(address)._replace(path="/product").geturl()


def _of_root(database: str) -> str:
    address = urlsplit(database)
    return address._replace(netloc=f"postgres@127.0.0.1:{address.port}").geturl()


@pytest.fixture
def mails() -> Iterator[Mailbox]:
    with mailbox() as box:
        yield box


@pytest.fixture
def site(database: str, mails: Mailbox, tmp_path: Path) -> Iterator[Product]:
    environment = {"DATABASE_URL": database, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(mails.port)}
    with product(tmp_path, environment=environment) as running:
        yield running


def as_root(database: str, query: str) -> list[tuple[object, ...]]:
    """Asks as the role that no wall holds back."""
    address = urlsplit(database)
    with psycopg.connect(
        address._replace(netloc=f"postgres@127.0.0.1:{address.port}").geturl()
    ) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def crash(database: str) -> None:
    """Kills one of the site's backends: the server ends all the others and recovers from its log."""
    [(victim,), *_others] = as_root(database, "SELECT pid FROM pg_stat_activity WHERE usename = 'site'")
    os.kill(int(str(victim)), signal.SIGKILL)

    def is_back() -> bool:
        try:
            return bool(as_root(database, "SELECT 1"))
        except psycopg.OperationalError:
            return False

    wait_until(is_back, seconds=30, otherwise=lambda: AssertionError("PostgreSQL does not come back"))


def test_a_database_that_restarts_costs_time_only(site: Product, database: str, mails: Mailbox) -> None:
    visitor = Visitor(site, mails, "visitor@example.com")
    page = visitor.order(visitor.upload(samples.path("half_minute.mp4")))
    visitor.wait_for(page, "running")
    crash(database)
    assert visitor.wait_for(page, *FINAL, seconds=200) == "succeeded"
    [(price, refunded)] = as_root(
        database, "SELECT price_credits, refunded_credits FROM restorations_restoration"
    )
    assert visitor.credits == 300 - int(str(price))
    assert refunded == 0
    statuses = as_root(database, "SELECT status FROM restorations_attempt")
    assert statuses.count(("succeeded",)) == 1
    assert not {("sending",), ("in_flight",)} & set(statuses)
    visitor.close()
