"""A workspace that two people share: invited by mail, joined at sign-up, roles that count at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.journeys.conftest import PASSWORD, Person
from tests.services.product import Product
from tests.services.smtp import Mailbox, code_in, link_in

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


@pytest.fixture
def guest(browser: Browser, site: Product, mails: Mailbox) -> Iterator[Person]:
    """Somebody else, at a phone and without scripts."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False)
    context.set_default_timeout(20_000)
    person = Person(context, site, mails)
    yield person
    context.close()


def test_an_invitation_leads_a_new_person_into_the_workspace(
    alice: Person, guest: Person, mails: Mailbox
) -> None:
    alice.go("/workspaces/new/")
    alice.page.fill("input[name=name]", "Studio North")
    alice.page.click("main form button[type=submit]")
    alice.page.wait_for_url("**/members/")
    members = alice.page.url
    home = members.removesuffix("members/")
    invite = alice.page.locator("form", has=alice.page.locator("input[name=email]"))
    invite.locator("input[name=email]").fill(guest.email)
    invite.locator("select[name=role]").select_option("viewer")
    invite.locator("button[type=submit]").click()
    expect(alice.page.locator("#messages")).to_contain_text(f"{guest.email} is invited.")

    # The guest has no account, and no scripts.
    guest.page.goto(link_in(mails.mail_to(guest.email, about="invited")))
    guest.page.click("button[name=signup]")
    guest.page.fill("input[name=email]", guest.email)
    guest.page.fill("input[name=password1]", PASSWORD)
    guest.page.click("main form button[type=submit]")
    guest.page.fill("input[name=code]", code_in(mails.mail_to(guest.email, about="code")))
    guest.page.click("main form button[type=submit]")
    guest.page.wait_for_url(home)
    expect(guest.page.locator("#messages")).to_contain_text("Welcome to Studio North.")
    expect(guest.page.locator("[data-uploader]")).to_have_count(0)

    # Another role counts with the next page.
    alice.page.goto(members)
    card = alice.page.locator("li.card", has_text=guest.email)
    card.locator("summary", has_text="Change").click()
    card.locator("select[name=role]").select_option("member")
    card.locator("input[name=monthly_limit]").fill("25")
    card.locator("button", has_text="Save").click()
    expect(alice.page.locator("li.card", has_text=guest.email)).to_contain_text("0 of 25 credits spent")
    guest.page.reload()
    expect(guest.page.locator("[data-uploader]")).to_have_count(1)

    # The log has it all; who is removed is out.
    alice.page.goto(f"{home}audit/")
    for words in ("Invited somebody", "Joined", "viewer → member", "–  → 25".replace("  ", " ")):
        expect(alice.page.locator("main")).to_contain_text(words)
    alice.page.goto(members)
    card = alice.page.locator("li.card", has_text=guest.email)
    card.locator("summary", has_text="Remove").click()
    card.locator("button.button-danger").click()
    expect(alice.page.locator("#messages")).to_contain_text("is not a member any more")
    answer = guest.page.reload()
    assert answer is not None
    assert answer.status == 404
    assert alice.problems == []
