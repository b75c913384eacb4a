"""The whole product on PostgreSQL, with the walls between workspaces that only it has.

Its import worker works in threads: each with its own connection and scope, or an import would not see its own row.
"""

from __future__ import annotations

import itertools
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import samples
from tests.services.films import Films, films
from tests.services.postgres import postgres
from tests.services.process_table import descendants
from tests.services.processes import wait_until
from tests.services.product import Product, product
from tests.services.smtp import Mailbox, mailbox
from tests.services.visitor import FINAL, Visitor

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]
PART = 2**18
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as address:
        with psycopg.connect(_of_root(address), autocommit=True) as root:
            root.execute("CREATE DATABASE product OWNER site")
        yield urlsplit(address)._replace(path="/product").geturl()


def _of_root(database: str) -> str:
    address = urlsplit(database)
    return address._replace(netloc=f"postgres@127.0.0.1:{address.port}").geturl()


@pytest.fixture(scope="module")
def mails() -> Iterator[Mailbox]:
    with mailbox() as box:
        yield box


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    with films(tmp_path_factory.mktemp("films")) as running:
        yield running


@pytest.fixture(scope="module")
def site(
    database: str, mails: Mailbox, elsewhere: Films, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    environment = {
        "DATABASE_URL": database,
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(mails.port),
        "UPLOAD_PART_BYTES": str(PART),
        **elsewhere.environment,
    }
    with product(tmp_path_factory.mktemp("var"), environment=environment) as running:
        yield running


@pytest.fixture
def visitors(site: Product, mails: Mailbox) -> Iterator[list[Visitor]]:
    """Two people who have nothing to do with each other."""
    both = [Visitor(site, mails, f"visitor{next(_numbers)}@example.com") for _ in range(2)]
    yield both
    for visitor in both:
        visitor.close()


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


def test_a_database_that_restarts_costs_time_only(visitors: list[Visitor], database: str) -> None:
    visitor, _other = visitors
    page = visitor.order(visitor.upload(samples.path("quarter_minute.mp4")))
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


# --- Imports --------------------------------------------------------------------------------------------------


def film(number: int, num_parts: int) -> bytes:
    """Returns a real video with bytes of its own behind it: MP4 readers skip boxes that are `free`."""
    padding = num_parts * PART
    content = samples.path("pal_25.mp4").read_bytes()
    return content + struct.pack(">I4s", padding, b"free") + bytes([number]) * (padding - 8)


def begin(visitor: Visitor, link: str) -> None:
    assert visitor.post(f"{visitor.home}imports/begin/", link=link).status_code == 200


def until_imports_are(database: str, status: str, *, name: str, number: int = 1, num_bytes: int = 0) -> None:
    query = (
        "SELECT status, received_bytes, problem, num_tries FROM restorations_linkimport"
        f" WHERE file_name LIKE '{name}%'"
    )

    def are_there() -> bool:
        rows = as_root(database, query)
        found = [row for row in rows if row[0] == status and int(str(row[1])) >= num_bytes]
        return len(found) == number

    wait_until(
        are_there, seconds=60, otherwise=lambda: AssertionError(f"not {status}: {as_root(database, query)}")
    )


def let_time_pass(database: str) -> None:
    """Makes it long ago that somebody heard of the imports."""
    query = "UPDATE restorations_linkimport SET touched_at = touched_at - interval '5 minutes' RETURNING 1"
    assert as_root(database, query)


def import_worker(site: Product) -> int:
    [worker] = [p.pid for p in descendants(site.process.pid) if "--queues imports" in p.command]
    return worker


def test_imports_go_on_after_their_worker_was_killed(
    site: Product, database: str, visitors: list[Visitor], elsewhere: Films
) -> None:
    elsewhere.calls.clear()
    elsewhere.waits_after = PART + PART // 2
    contents = {number: film(number, num_parts=3) for number in range(6)}
    for number, content in contents.items():
        begin(visitors[number % 2], elsewhere.publish(f"film{number}.mp4", content))
    # All at once, which takes a thread for each: none gets further than this before the line is free again.
    until_imports_are(database, "fetching", name="film", number=6, num_bytes=PART)
    assert [call.range for call in elsewhere.calls] == [""] * 6
    os.kill(import_worker(site), signal.SIGKILL)
    let_time_pass(database)
    elsewhere.go_on()
    until_imports_are(database, "done", name="film", number=6)
    assert [call.range for call in elsewhere.calls[6:]] == [f"bytes={PART}-"] * 6, "the rest only"

    rows = as_root(
        database,
        "SELECT v.file_name, v.storage_key, i.workspace_id, v.workspace_id, i.num_tries FROM restorations_linkimport i"
        " JOIN restorations_video v ON v.id = i.video_id ORDER BY v.file_name",
    )
    assert [row[0] for row in rows] == [f"film{number}.mp4" for number in contents]
    for (_name, key, *workspaces, num_tries), content in zip(rows, contents.values(), strict=True):
        assert (site.var_dir / "objects" / str(key)).read_bytes() == content
        assert str(key).startswith(f"{workspaces[0]}/")
        assert workspaces[0] == workspaces[1]
        assert num_tries == 2
    for which, visitor in enumerate(visitors):
        page = visitor.http.get(visitor.home).text
        assert {number for number in contents if f"film{number}" in page} == {which, which + 2, which + 4}


def test_a_worker_that_is_asked_to_end_hands_its_imports_to_the_next(
    site: Product, database: str, visitors: list[Visitor], elsewhere: Films
) -> None:
    elsewhere.calls.clear()
    elsewhere.waits_after = PART + PART // 2
    begin(visitors[0], elsewhere.publish("long.mp4", film(7, num_parts=60)))
    until_imports_are(database, "fetching", name="long", num_bytes=PART)
    worker = import_worker(site)
    os.kill(worker, signal.SIGTERM)

    def is_gone() -> bool:
        # It looks when bytes come, and they come slowly.
        elsewhere.waits_after = (elsewhere.waits_after or 0) + PART // 8
        time.sleep(0.05)
        return not Path(f"/proc/{worker}").exists()

    wait_until(is_gone, seconds=60, otherwise=lambda: AssertionError("it does not end"))
    until_imports_are(database, "waiting", name="long")
    elsewhere.go_on()
    let_time_pass(database)
    until_imports_are(database, "done", name="long")
    first, second = elsewhere.calls
    assert first.num_bytes_sent < len(film(7, num_parts=60))
    assert int(second.range.removeprefix("bytes=").removesuffix("-")) >= PART
