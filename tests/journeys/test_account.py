"""The end of an account: take the data along, close it, come back, and leave for good on another day."""

from __future__ import annotations

import re
import zipfile

import pytest
from playwright.sync_api import expect

from tests.journeys.conftest import PASSWORD, Person

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]


def say_again_who_it_is(person: Person) -> None:
    person.page.wait_for_url("**/reauthenticate/**")
    person.page.fill("input[name=password]", PASSWORD)
    person.page.click("main form button[type=submit]")


def test_data_goes_along_and_a_closed_account_comes_back(alice: Person) -> None:
    page = alice.page
    home = page.url
    alice.go("/settings/data/")
    page.get_by_role("button", name="Collect my data").click()
    say_again_who_it_is(alice)
    expect(page.get_by_text("We collect your data")).to_be_visible()
    alice.mails.mail_to(alice.email, about="Your data is ready")
    alice.go("/settings/data/")
    with page.expect_download() as fetched:
        page.get_by_role("link", name="Download").click()
    assert fetched.value.suggested_filename.endswith(".zip")
    with zipfile.ZipFile(fetched.value.path()) as archive:
        assert alice.email in archive.read("profile.json").decode()

    page.get_by_role("link", name="Delete my account").click()
    expect(page.get_by_text("300 credits in it are lost.")).to_be_visible()
    page.get_by_role("button", name="Close and delete my account").click()
    expect(page.get_by_role("heading", name="Your account is closed")).to_be_visible()
    told = alice.mails.mail_to(alice.email, about="Your account will be deleted")
    assert "/settings/delete/" in told.get_content()
    page.goto(home)
    expect(page.get_by_role("heading", name="Your account is closed")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    alice.go("/accounts/login/")
    page.fill("input[name=login]", alice.email)
    page.fill("input[name=password]", PASSWORD)
    page.click("main form button[type=submit]")
    page.get_by_role("button", name="Keep my account").click()
    page.wait_for_url(re.compile(r"/w/[^/]+/$"))
    expect(page.get_by_text("Your account is yours again, as it was.")).to_be_visible()
    assert page.url == home
