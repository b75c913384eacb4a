"""The main way: sign up, upload, order, watch, compare, download; and what can happen on it."""

from __future__ import annotations

import re
import sqlite3
from fractions import Fraction
from pathlib import Path

import av
import pytest
from playwright.sync_api import (
    APIResponse,
    Browser,
    Locator,
    Page,
    Request,
    Route,
    WebSocketRoute,
    expect,
)

from tests import samples
from tests.journeys.conftest import Person
from tests.services.product import Product
from tests.services.smtp import Mailbox, link_in

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


def sound_packets(file: Path) -> list[bytes]:
    with av.open(file) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_a_new_person_restores_a_video(alice: Person, mails: Mailbox, tmp_path: Path) -> None:
    source = samples.path("bigbuckbunny.mp4")
    page = alice.page
    assert alice.credits == 300
    alice.upload(source)
    expect(page.locator("#quote")).to_contain_text("1920 × 1080")
    alice.restore("720p")
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    page.focus("summary:has-text('Cancel restoration')")
    alice.wait_for_status("running")
    expect(page.locator("#restoration-status")).to_contain_text("of 132 frames done")
    alice.wait_for_status("succeeded")
    assert loads == [], "the status changed without a reload"
    expect(page.locator("#restoration-status")).to_be_focused()  # what had the focus is gone
    page.go_back()
    expect(page.locator("#credit-badge b")).to_have_text("287")
    page.go_forward()

    assert alice.credits == 300 - 13
    expect(page.locator("#restoration-status")).to_contain_text("CPU preview engine")
    with page.expect_download() as download:
        page.click("text=Download")
    assert re.fullmatch(r"bigbuckbunny_720p_seed\d+\.mp4", download.value.suggested_filename)
    result = tmp_path / "result.mp4"
    download.value.save_as(result)
    with av.open(result) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (1280, 720, Fraction(25))
        assert sum(1 for _ in container.decode(stream)) == 132
    assert sound_packets(result) == sound_packets(source)

    mail = mails.mail_to(alice.email, about="ready")
    assert link_in(mail) == page.url
    assert alice.problems == []


def frames_shown(page: Page) -> tuple[float, float]:
    return page.evaluate(
        "() => [...document.querySelectorAll('[data-compare] video')].map(v => v.currentTime)"
    )


def test_an_old_film_is_compared_frame_by_frame(alice: Person) -> None:
    alice.upload(samples.path("grand_prix_1906.ogv"))
    alice.restore("720p")
    alice.wait_for_status("succeeded", seconds=100)
    page = alice.page
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-compare] video')].every(v => v.readyState >= 2)"
    )
    slider = page.get_by_role("slider").first
    slider.focus()
    before = int(slider.get_attribute("aria-valuenow") or -1)
    page.keyboard.press("ArrowRight")
    assert int(slider.get_attribute("aria-valuenow") or -1) > before
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuenow") == "0"

    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => document.querySelector('[data-compare] video').currentTime > 1.5")
    source, result = frames_shown(page)
    assert abs(source - result) <= 2 / 15, "both sides stay together"
    assert alice.problems == []


def test_cancel_shows_what_comes_back_and_gives_it_back(alice: Person) -> None:
    alice.context.route_web_socket(re.compile("/ws/"), lambda socket: socket.close(code=1011, reason="lost"))
    alice.upload(samples.path("half_minute.mp4"))
    alice.restore("720p")
    alice.wait_for_status("running")
    page = alice.page
    page.click("summary:has-text('Advanced')")
    held = hold_polls(page)
    with page.expect_request(is_poll):
        page.evaluate("document.dispatchEvent(new Event('upload-finished'))")  # the page asks at once
    page.click("summary:has-text('Cancel restoration')")
    panel = page.locator("#confirm-cancel")
    expect(panel).to_contain_text(re.compile(r"\d+ of \d+ credits come back"))
    page.click("button:has-text('Cancel it')")
    alice.wait_for_status("cancelled")
    expect(page.locator("#advanced")).to_have_attribute("open", "")
    let_polls_go(page, held)
    alice.wait_for_status("cancelled", seconds=1)
    refunded = re.search(r"(\d+) of (\d+) credits? w", page.locator("#restoration-status").inner_text())
    assert refunded is not None
    back, price = int(refunded[1]), int(refunded[2])
    assert 0 < back <= price
    assert alice.credits == 300 - price + back
    assert alice.problems == []


def test_an_answer_that_was_overtaken_does_not_bring_back_what_is_over(alice: Person) -> None:
    alice.upload(samples.path("half_minute.mp4"))
    alice.restore("720p")
    alice.wait_for_status("running")
    page, address = alice.page, alice.page.url
    held = hold_polls(page)
    with page.expect_request(is_poll):
        page.reload()  # opening its socket, the page asks once more
    other = alice.open_page()
    other.goto(address)
    other.click("summary:has-text('Cancel restoration')")
    other.click("button:has-text('Cancel it')")
    alice.wait_for_status("cancelled")
    let_polls_go(page, held)
    alice.wait_for_status("cancelled", seconds=1)
    assert alice.problems == []


def hold_polls(page: Page) -> list[tuple[Route, APIResponse]]:
    """Keeps the answers of this page's polls on their way."""
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if is_poll(route.request):
            held.append((route, route.fetch()))
        else:
            route.continue_()

    page.route(page.url, hold)
    return held


def let_polls_go(page: Page, held: list[tuple[Route, APIResponse]]) -> None:
    """Lets the answers come, which were made while the restoration was running."""
    assert 'data-state="running-' in held[0][1].text()
    for route, answer in held:
        with page.expect_event("requestfinished"):
            route.fulfill(response=answer)
    page.wait_for_timeout(200)  # the script reads the answer


def is_poll(request: Request) -> bool:
    return request.headers.get("hx-request") == "true"


def test_a_failure_says_why_and_gives_everything_back(alice: Person, site: Product, mails: Mailbox) -> None:
    alice.upload(samples.path("pal_25.mp4"))
    with sqlite3.connect(site.var_dir / "db.sqlite3") as database:
        [[key]] = database.execute(
            "SELECT storage_key FROM restorations_video ORDER BY created_at DESC LIMIT 1"
        )
    stored = site.var_dir / "objects" / key
    stored.write_bytes(stored.read_bytes()[:-1000])
    alice.restore("720p")
    alice.wait_for_status("failed")
    status = alice.page.locator("#restoration-status")
    expect(status).to_contain_text("The stored video is not the one you uploaded.")
    expect(status).to_contain_text("given back")
    assert alice.credits == 300
    assert "back in your account" in mails.mail_to(alice.email, about="could not be restored").get_content()
    assert alice.problems == []


def test_a_file_that_cannot_be_restored_says_why_and_costs_nothing(alice: Person) -> None:
    alice.choose(samples.path("sound_only.m4a"))
    expect(alice.page.locator("#video-status")).to_contain_text("sound but no picture")
    assert alice.credits == 300
    assert alice.problems == []


def test_a_lost_socket_costs_seconds_not_the_news(alice: Person) -> None:
    def cut(socket: WebSocketRoute) -> None:
        socket.close(code=1011, reason="lost")

    alice.context.route_web_socket(re.compile("/ws/"), cut)
    alice.upload(samples.path("pal_25.mp4"))
    alice.restore("720p")
    alice.wait_for_status("succeeded")
    expect(alice.page.get_by_role("link", name="Download")).to_be_visible()


def test_without_javascript_everything_works_up_to_one_request(
    browser: Browser, site: Product, mails: Mailbox
) -> None:
    context = browser.new_context(java_script_enabled=False)
    person = Person(context, site, mails)
    person.sign_up()
    page = person.page
    page.set_input_files("input[type=file]", str(samples.path("pal_25.mp4")))
    page.click("button:has-text('Upload')")
    page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"))
    restore = page.locator("#quote button.button-primary")
    load_again_until_visible(page, restore)
    page.locator("input[name=preset][value='720p']").check(force=True)
    restore.click()
    page.wait_for_url(re.compile(r"/restorations/[0-9a-f-]+/$"))
    load_again_until_visible(page, page.locator("#restoration-status[data-state^=succeeded]"))
    context.close()


def load_again_until_visible(page: Page, wanted: Locator) -> None:
    for _ in range(60):
        if wanted.is_visible():
            return
        page.wait_for_timeout(500)
        page.reload()  # the page offers a link for this, in a <noscript> that Playwright does not look into
    expect(wanted).to_be_visible()


def test_a_result_and_its_source_are_deleted_from_their_pages(alice: Person, site: Product) -> None:
    alice.upload(samples.path("silent.mp4"))
    video_page = alice.page.url
    alice.restore("720p")
    alice.wait_for_status("succeeded")
    page = alice.page
    # The page came through the socket: its forms have to work as those of a page do.
    page.click("summary:has-text('Delete result')")
    page.click("button:has-text('Delete for good')")
    page.wait_for_url("**/restorations/")
    expect(page.locator("main")).to_contain_text("The result is deleted.")
    page.goto(video_page)
    other = alice.open_page()
    other.goto(alice.address)
    expect(other.locator(".video-card")).to_have_count(1)
    page.click("summary:has-text('Delete video')")
    page.click("button:has-text('Delete for good')")
    page.wait_for_url("**/w/*/")
    expect(other.locator(".video-card")).to_have_count(0, timeout=10_000)
    assert page.goto(video_page).status == 404  # type: ignore[union-attr]
    left = [
        file
        for folder in ("sources", "results")
        for file in site.var_dir.glob(f"objects/*/{folder}/**/*.mp4")
    ]
    names = {file.stat().st_size for file in left}
    assert samples.path("silent.mp4").stat().st_size not in names


def test_a_stranger_sees_nothing(alice: Person, browser: Browser, site: Product, mails: Mailbox) -> None:
    alice.upload(samples.path("pal_25.mp4"))
    pages = [alice.page.url]
    alice.restore("720p")
    pages.append(alice.page.url)
    context = browser.new_context()
    stranger = Person(context, site, mails)
    stranger.sign_up()
    for address in pages:
        answer = stranger.page.goto(address)
        assert answer is not None
        assert answer.status == 404
    context.close()
