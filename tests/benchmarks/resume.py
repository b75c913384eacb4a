"""Measures what a closed tab costs an upload (U1): `python -m tests.benchmarks.resume [GIGABYTES] [--save]`.

Chromium uploads a large film to the whole product, the tab is closed in the middle of a part, and the same file is
chosen again in a new one. On both stores. The film is real at its beginning and a hole behind it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests import samples
from tests.journeys.conftest import Person
from tests.services.chromium import chromium
from tests.services.processes import free_port
from tests.services.product import ROOT, Product, product
from tests.services.seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, seaweedfs
from tests.services.smtp import Mailbox, mailbox

PART_BYTES = 16 * 2**20
_NUMBER = re.compile(r"partNumber=(\d+)|/objects/[^/]+/(\d+)$")


def film(folder: Path, num_bytes: int) -> Path:
    """Writes a film of so many bytes, of which the disk holds the first few."""
    content = samples.path("pal_25.mp4").read_bytes()
    file = folder / "film.mp4"
    with file.open("wb") as opened:
        opened.write(content + struct.pack(">I4sQ", 1, b"free", num_bytes - len(content)))
        opened.truncate(num_bytes)
    return file


class Sent:
    """The parts that a page has begun to send."""

    def __init__(self, page: Page) -> None:
        self.numbers: list[int] = []
        self.began_at: float | None = None
        page.on("request", self._begun)

    def _begun(self, request: Request) -> None:
        if (number := _part(request)) is not None:
            self.began_at = self.began_at or time.monotonic()
            self.numbers.append(number)


def _part(request: Request) -> int | None:
    found = _NUMBER.search(request.url) if request.method == "PUT" else None
    return int(found[1] or found[2]) if found else None


def measure(browser: Browser, site: Product, mails: Mailbox, file: Path) -> dict[str, float]:
    """Uploads a file with a closed tab in the middle; returns what it cost."""
    num_parts = -(-file.stat().st_size // PART_BYTES)
    context = browser.new_context()
    person = Person(context, site, mails)
    person.sign_up()
    before = Sent(person.page)
    started_at = time.monotonic()
    person.choose(file)
    _wait(person.page, lambda: len(before.numbers) > num_parts // 2)
    closed_at = time.monotonic()
    person.page.close(run_before_unload=False)
    person.page = person.open_page()
    person.go("/")
    after = Sent(person.page)
    again_at = time.monotonic()
    person.choose(file)
    person.page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"), timeout=900_000)
    ended_at = time.monotonic()
    context.close()
    assert after.began_at is not None
    assert set(before.numbers) | set(after.numbers) == set(range(1, num_parts + 1))
    num_seconds = closed_at - started_at + ended_at - after.began_at
    return {
        "parts of 16 MiB": num_parts,
        "begun before the tab was closed": len(before.numbers),
        "sent again": len(before.numbers) + len(after.numbers) - num_parts,
        "from choosing again to the first byte, seconds": after.began_at - again_at,
        "megabytes a second": file.stat().st_size / 1e6 / num_seconds,
    }


def _wait(page: Page, is_over: Callable[[], bool]) -> None:
    # Events come while Playwright waits.
    while not is_over():
        page.wait_for_timeout(20)


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, Mapping[str, str]]]:
    """Yields the environment of a product on each store."""
    (folder / "seaweedfs").mkdir()
    with seaweedfs(folder / "seaweedfs") as address:
        bucket = {
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": address,
            "S3_ACCESS_KEY_ID": ACCESS_KEY,
            "S3_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        yield {"files": {}, "S3 (SeaweedFS)": bucket}


def main() -> None:
    """Measures, prints a table and a JSON line, and files the table when asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", type=float, nargs="?", default=5.0)
    parser.add_argument("--save", action="store_true", help="file the table under docs/benchmarks/")
    arguments = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mails = stack.enter_context(mailbox())
        playwright = stack.enter_context(sync_playwright())
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium(), args=sandbox)
        file = film(folder, int(arguments.gigabytes * 1e9))
        for name, environment in stack.enter_context(stores(folder)).items():
            mail = {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(mails.port)}
            with product(folder / name, port=free_port(), environment={**mail, **environment}) as site:
                columns[name] = measure(browser, site, mails, file)
        browser.close()
    table = _table(columns, arguments.gigabytes)
    print(table)
    print(json.dumps(columns))
    if arguments.save:
        target = ROOT / "docs" / "benchmarks" / f"resume_cpu_{dt.datetime.now(dt.UTC).date()}.md"
        target.write_text(table)


def _table(columns: dict[str, dict[str, float]], gigabytes: float) -> str:
    names = list(columns)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, other work beside it"
    lines = [
        f"# What a closed tab costs an upload of {gigabytes:g} GB, {dt.datetime.now(dt.UTC).date()}",
        "",
        f"`python -m tests.benchmarks.resume {gigabytes:g}` on {machine}. Chromium, site and storage",
        "share them. U1 asks for one part at most that is sent again.",
        "",
        f"| | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for row in columns[names[0]]:
        lines.append(f"| {row} | {' | '.join(f'{columns[name][row]:,.3g}' for name in names)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
