"""A link in place of a file: pasted, fetched in sight, played and priced; or refused with a sentence."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests import samples
from tests.journeys.conftest import PART_BYTES, Person
from tests.services.films import Films

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
CONTENT = samples.path("bigbuckbunny.mp4").read_bytes()


def test_a_link_becomes_a_video_while_one_looks_on(alice: Person, elsewhere: Films) -> None:
    page = alice.page
    elsewhere.waits_after = len(CONTENT) // 2
    page.get_by_label("Or paste a link to a video").fill(elsewhere.publish("big buck bunny.mp4", CONTENT))
    page.get_by_role("button", name="Import").click()
    row = page.locator("#import-list li")
    expect(row).to_contain_text("big buck bunny.mp4")
    progress = row.get_by_role("progressbar", name="Import of big buck bunny.mp4")
    expect(progress).to_have_attribute("value", re.compile("^4[0-9]$|^50$"))
    expect(row).to_contain_text("fetched")
    # The row is told anew each second; whoever is about to press its button keeps the focus.
    cancel = row.get_by_role("button", name="Cancel")
    cancel.focus()
    with page.expect_response(re.compile("/imports/$")):
        pass
    expect(cancel).to_be_focused()

    elsewhere.go_on()
    expect(row).to_contain_text("Imported")
    expect(page.locator("#announcer")).to_have_text("big buck bunny.mp4: Imported")
    expect(page.locator("#library")).to_contain_text("big buck bunny")
    row.get_by_role("link", name="Open").click()
    page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"))
    expect(page.locator("h1")).to_have_text("big buck bunny")
    expect(page.locator("#quote button.button-primary")).to_be_visible(timeout=20_000)
    assert elsewhere.calls[-1].num_bytes_sent == len(CONTENT)


def test_cancelling_leaves_the_next_link_where_it_was_typed(alice: Person, elsewhere: Films) -> None:
    page = alice.page
    elsewhere.waits_after = PART_BYTES
    link = page.get_by_label("Or paste a link to a video")
    link.fill(elsewhere.publish("wrong one.mp4", CONTENT))
    page.get_by_role("button", name="Import").click()
    row = page.locator("#import-list li")
    expect(row).to_contain_text("fetched")
    link.fill("https://films.example/right one.mp4")
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("Cancelled")
    expect(link).to_have_value("https://films.example/right one.mp4")
    elsewhere.go_on()


def test_a_link_into_a_private_network_is_refused_with_a_sentence(alice: Person) -> None:
    page = alice.page
    # Wrong at a glance: what was typed stays there.
    page.get_by_label("Or paste a link to a video").fill("http://films.example/a.mp4")
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#imports [role=alert]")).to_have_text(
        "Only links that begin with https:// can be imported."
    )
    expect(page.get_by_label("Or paste a link to a video")).to_have_value("http://films.example/a.mp4")

    page.get_by_label("Or paste a link to a video").fill("https://10.0.0.1/a.mp4")
    page.get_by_role("button", name="Import").click()
    row = page.locator("#import-list li")
    expect(row).to_contain_text(
        "This link leads into a private network, which we do not call. Please upload the file instead."
    )
    expect(row.get_by_role("link", name="Open")).to_have_count(0)


def test_an_import_without_javascript(browser: Browser, alice: Person, elsewhere: Films) -> None:
    context = browser.new_context(java_script_enabled=False, storage_state=alice.context.storage_state())
    page = context.new_page()
    page.goto(alice.page.url)
    elsewhere.waits_after = PART_BYTES
    link = elsewhere.publish("without.mp4", CONTENT)

    page.get_by_label("Or paste a link to a video").fill(link.replace("https", "http"))
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#imports [role=alert]")).to_contain_text("https://")
    expect(page.get_by_label("Or paste a link to a video")).to_have_value(link.replace("https", "http"))
    page.get_by_label("Or paste a link to a video").fill(link)
    page.get_by_role("button", name="Import").click()

    def load_again_until(text: str) -> None:
        row = page.locator("#import-list li")
        for _ in range(60):
            if text in row.inner_text():
                return
            page.wait_for_timeout(300)
            page.locator("#imports").get_by_role("link", name="Load it again").click()
        raise AssertionError(row.inner_text())

    load_again_until("fetched")
    elsewhere.go_on()
    load_again_until("Imported")
    page.get_by_role("link", name="Open").click()
    expect(page.locator("h1")).to_have_text("without")
    context.close()
