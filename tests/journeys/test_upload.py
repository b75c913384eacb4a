"""Uploads as people do them: many at once, dropped anywhere, interrupted, taken up again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Request, Route, expect

from tests import samples
from tests.journeys.conftest import PART_BYTES, Person
from tests.services.process_table import descendants

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
PARTS = re.compile(r"/objects/[^/]+/\d+$")


def part_number(request: Request) -> int:
    return int(request.url.rpartition("/")[2])


def test_a_reload_in_the_middle_sends_only_what_is_missing(alice: Person) -> None:
    source = samples.path("bigbuckbunny.mp4")
    num_parts = -(-source.stat().st_size // PART_BYTES)
    arrived: list[int] = []
    page = alice.page

    def let_two_through(route: Route) -> None:
        if len(arrived) >= 2:
            route.abort("connectionreset")
            return
        arrived.append(part_number(route.request))
        route.continue_()

    page.route(PARTS, let_two_through)
    alice.choose(source)
    page.wait_for_timeout(1500)
    assert len(arrived) == 2

    sent_again: list[int] = []
    page.close()
    alice.page = page = alice.open_page()
    alice.go("/")
    page.on(
        "request", lambda r: PARTS.search(r.url) and r.method == "PUT" and sent_again.append(part_number(r))
    )
    alice.upload(source)
    assert Counter(sent_again + arrived) == Counter(range(1, num_parts + 1))


def test_a_lost_network_loses_one_part_at_most(alice: Person) -> None:
    source = samples.path("bigbuckbunny.mp4")
    num_parts = -(-source.stat().st_size // PART_BYTES)
    tries: Counter[int] = Counter()

    def fail_once(route: Route) -> None:
        number = part_number(route.request)
        tries[number] += 1
        if number == 3 and tries[3] == 1:
            route.abort("connectionreset")
        else:
            route.continue_()

    alice.page.route(PARTS, fail_once)
    alice.upload(source)
    assert tries == Counter({n: 2 if n == 3 else 1 for n in range(1, num_parts + 1)})


def test_a_file_that_was_moved_meanwhile_is_chosen_again(alice: Person, tmp_path: Path) -> None:
    file, moved = tmp_path / "film.mp4", tmp_path / "moved" / "film.mp4"
    shutil.copy(samples.path("bigbuckbunny.mp4"), file)
    moved.parent.mkdir()
    # As on a page that is not secure, whose parts carry no checksums.
    alice.page.add_init_script("Object.defineProperty(Crypto.prototype, 'subtle', { value: undefined })")
    alice.page.reload()

    def move(route: Route) -> None:
        if part_number(route.request) == 2:
            file.rename(moved)
        route.continue_()

    alice.page.route(PARTS, move, times=2)
    alice.choose(file)
    row = alice.page.locator("[data-upload-list] > li")
    expect(row).to_contain_text("Was it moved or changed? Choose it again.")
    alice.upload(moved)


def test_a_site_that_falls_is_waited_for(alice: Person) -> None:
    source = samples.path("bigbuckbunny.mp4")
    num_parts = -(-source.stat().st_size // PART_BYTES)
    tries: Counter[int] = Counter()

    def count(route: Route) -> None:
        tries[number := part_number(route.request)] += 1
        if number == 3 and tries[3] == 1:
            web = next(p for p in descendants(alice.site.process.pid) if "uvicorn" in p.command)
            os.kill(web.pid, signal.SIGKILL)
        route.continue_()

    alice.page.route(PARTS, count)
    alice.choose(source)
    row = alice.page.locator("[data-upload-list] > li")
    sentence = "The site does not answer at the moment. What has arrived is kept"
    expect(row).to_contain_text(sentence, timeout=30_000)
    alice.page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"), timeout=60_000)
    assert {number for number, times in tries.items() if times > 1} <= {3}
    assert set(tries) == set(range(1, num_parts + 1))


def test_twenty_files_at_once_with_four_in_flight_and_one_that_fails(alice: Person, tmp_path: Path) -> None:
    files = [tmp_path / f"clip {n}.mp4" for n in range(19)]
    for file in files:
        shutil.copy(samples.path("pal_25.mp4"), file)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    in_flight, most = 0, 0

    def count(route: Route) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        time.sleep(0.02)
        route.continue_()

    def finished(request: Request) -> None:
        nonlocal in_flight
        if PARTS.search(request.url):
            in_flight -= 1

    page = alice.page
    page.on("requestfinished", finished)
    page.route(PARTS, count)
    alice.choose(*files[:10], empty, *files[10:])
    rows = page.locator("[data-upload-list] > li")
    expect(rows.locator("[data-open]:visible")).to_have_count(19, timeout=60_000)
    expect(rows.filter(has_text="empty.mp4")).to_contain_text("This file is empty.")
    assert 1 <= most <= 4


def test_a_video_dropped_anywhere_is_uploaded(alice: Person) -> None:
    content = list(samples.path("pal_25.mp4").read_bytes())
    transfer = alice.page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.mp4", {type: "video/mp4"}));
            return transfer;
        }""",
        content,
    )
    for event in ("dragenter", "dragover", "drop"):
        alice.page.dispatch_event("footer", event, {"dataTransfer": transfer})
    alice.page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"))
    expect(alice.page.locator("h1")).to_have_text("dropped")


def test_one_upload_is_restored_many_times(alice: Person) -> None:
    alice.upload(samples.path("silent.mp4"))
    video_page = alice.page.url
    # The same settings again would show the result that is there already.
    for preset in ("720p", "1080p"):
        alice.page.goto(video_page)
        alice.restore(preset)
        alice.page.goto(video_page)
        newest = alice.page.locator("article[id^=restoration-]").first
        expect(newest).to_have_attribute("data-state", re.compile("^succeeded-"), timeout=60_000)
    expect(alice.page.locator("article[id^=restoration-]")).to_have_count(2)
