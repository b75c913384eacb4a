"""Three seconds first, then the whole: one price for both, and no frame is made twice."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest
from playwright.sync_api import expect

from tests import samples
from tests.journeys.conftest import Person
from tests.services.product import Product

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]


def test_a_preview_is_compared_and_taken_off_the_whole(alice: Person, site: Product) -> None:
    page = alice.page
    alice.upload(samples.path("bigbuckbunny.mp4"))
    page.locator("label:has(input[value='720p'])").click()
    preview = page.get_by_role("button", name=re.compile("^Preview 3 seconds for 7 credits"))
    expect(preview).to_be_visible()

    begin = page.locator("#preview-start")
    begin.locator("summary").click()
    player = begin.locator("video")
    page.wait_for_function("() => document.querySelector('#preview-start video').readyState >= 1")
    slider = begin.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    expect(begin.locator("summary")).to_contain_text("0:00")
    # The person stops the player, and the preview begins there.
    player.evaluate("video => { video.currentTime = 2 }")
    expect(begin.locator("summary")).to_contain_text("0:02")
    preview.click()
    page.wait_for_url(re.compile(r"/restorations/[0-9a-f-]+/$"))
    alice.wait_for_status("succeeded", seconds=100)

    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-compare] video')].every(v => v.readyState >= 2)"
    )
    page.get_by_role("button", name="One frame on").click()
    source, result = page.evaluate(
        "() => [...document.querySelectorAll('[data-compare] video')].map(v => v.currentTime)"
    )
    start = float(page.locator("[data-compare]").get_attribute("data-source-start") or 0)
    assert 2 <= start < 2.2
    assert (round(25 * result), round(25 * (source - result))) == (2, round(25 * start))

    page.get_by_role("button", name="Restore the whole video for 6 credits").click()
    expect(page.locator("#restoration-status")).to_contain_text("(7 taken off for a preview)")
    alice.wait_for_status("succeeded", seconds=100)
    assert alice.credits == 300 - 13
    with sqlite3.connect(site.var_dir / "db.sqlite3") as database:
        rows = database.execute(
            "SELECT manifest FROM restorations_restoration ORDER BY created_at DESC LIMIT 2"
        )
        whole, part = (json.loads(manifest) for (manifest,) in rows)
    assert (whole["num_frames"], whole["segments_reused"]) == (132, part["segments_made"])
    assert alice.problems == []
