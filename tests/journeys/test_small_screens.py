"""Every page at 360 pixels: nothing is wider than the screen, everything can be reached by touch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests import samples
from tests.journeys.conftest import Person
from tests.services.product import Product
from tests.services.smtp import Mailbox

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
OPEN_TO_ALL = ("/", "/accounts/login/", "/accounts/signup/", "/accounts/password/reset/", "/nothing/")
#: WCAG 2.2, 2.5.8: links inside sentences are exempt; an input inside its label is as large as that.
SMALL_TARGETS = """() => [...document.querySelectorAll("button, summary, input:not([type=hidden]), a.button")]
    .filter(e => e.checkVisibility() && !e.closest("p"))
    .map(e => [e.outerHTML.slice(0, 80), (e.closest("label") ?? e).getBoundingClientRect()])
    .filter(([_, box]) => box.width > 1 && (box.width < 24 || box.height < 24)).map(([html]) => html)"""

UNFINISHED = """name => {
    const { createUrl } = document.querySelector("[data-uploader]").dataset;
    localStorage.setItem(`uploads ${createUrl}`, JSON.stringify({ any: { name, percent: 40, abortUrl: "" } }));
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(
    browser: Browser, site: Product, mails: Mailbox, theme: str, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=theme, has_touch=True)
    person = Person(context, site, mails)
    for path in OPEN_TO_ALL:
        person.go(path)
        check(person, path)
    home = person.sign_up()
    film = tmp_path / f"{'x' * 200}.mp4"
    film.touch()
    person.choose(film)
    expect(person.page.locator("[data-upload-list]")).to_contain_text("This file is empty.")
    person.page.evaluate(UNFINISHED, film.name)
    check(person, "uploads")
    person.page.reload()
    expect(person.page.locator("[data-upload-resume]")).to_contain_text("40 % is there")
    check(person, "unfinished uploads")
    shutil.copy(samples.path("pal_25.mp4"), film)
    person.upload(film)
    check(person, "video")
    person.restore("720p")
    check(person, "live")
    person.wait_for_status("succeeded")
    check(person, "done")
    of_workspace = ("", "restorations/", "credits/", "members/", "settings/", "audit/")
    for path in (*(f"{home}{page}" for page in of_workspace), "/settings/", "/workspaces/new/"):
        person.go(path)
        check(person, path)
    person.go(f"{home}settings/")
    person.page.fill("input[name=name]", 80 * "x")
    person.page.click("main form button[type=submit]")
    person.go(f"{home}audit/")
    person.page.click("[data-menu] summary")
    check(person, "a long name")
    person.page.focus("main a")
    expect(person.page.locator("[data-menu]")).not_to_have_attribute("open", "")
    context.close()


def check(person: Person, what: str) -> None:
    person.page.wait_for_load_state()
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 360, what
    assert person.page.evaluate(SMALL_TARGETS) == [], what
