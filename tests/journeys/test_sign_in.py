"""Signing in by passkey and by authenticator app, in a browser with an authenticator of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from playwright.sync_api import Browser, expect

from tests import samples
from tests.journeys.conftest import PASSWORD, Person
from tests.services.product import Product
from tests.services.smtp import Mailbox, code_in

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
IN_A_WORKSPACE = re.compile(r"/w/[^/]+/$")


@pytest.fixture
def dora(browser: Browser, site: Product, mails: Mailbox) -> Iterator[Person]:
    """Somebody whose device makes passkeys. Browsers keep them for names, not for numbers: the site is "localhost"."""
    context = browser.new_context()
    context.set_default_timeout(20_000)
    person = Person(context, site, mails)
    person.address = f"http://localhost:{site.port}"
    device = context.new_cdp_session(person.page)
    device.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    device.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    yield person
    assert person.problems == []
    context.close()


def submit(person: Person) -> None:
    person.page.click("main form button[type=submit]")


def enter_mailed_code(person: Person) -> None:
    person.page.wait_for_url("**/confirm-email/")
    person.page.fill("input[name=code]", code_in(person.mails.mail_to(person.email, about="code")))
    submit(person)


def open_after_password(person: Person, path: str) -> None:
    """Opens a page that first wants to know whether it is still the same person."""
    person.go(path)
    person.page.wait_for_url("**/reauthenticate/**")
    person.page.fill("input[name=password]", PASSWORD)
    submit(person)
    person.page.wait_for_url(f"**{path}")


def sign_out(person: Person) -> None:
    person.go("/accounts/logout/")
    submit(person)
    expect(person.page.get_by_role("link", name="Sign in").first).to_be_visible()


def enter_password(person: Person) -> None:
    person.go("/accounts/login/")
    person.page.fill("input[name=login]", person.email)
    person.page.fill("input[name=password]", PASSWORD)
    submit(person)


def app_code(secret: str) -> str:
    """Returns what an authenticator app shows now."""
    return format_hotp_value(hotp_value(secret, next(yield_hotp_counters_from_time())))


def test_a_passkey_signs_up_and_in_without_a_password(dora: Person) -> None:
    page = dora.page
    dora.go("/accounts/signup/")
    page.get_by_role("link", name="Sign up with a passkey").click()
    page.fill("input[name=email]", dora.email)
    submit(dora)
    enter_mailed_code(dora)
    # The button does nothing until the page is there as a whole.
    page.wait_for_url("**/webauthn/signup/")
    page.click("#mfa_webauthn_signup")
    page.wait_for_url(IN_A_WORKSPACE)
    sign_out(dora)

    dora.go("/accounts/login/")
    page.click("#passkey_login")
    page.wait_for_url(IN_A_WORKSPACE)
    dora.go("/accounts/2fa/")
    expect(page.get_by_text("You have 1.")).to_be_visible()


def test_an_app_is_a_second_step_and_recovery_codes_replace_it(dora: Person) -> None:
    page = dora.page
    dora.sign_up()
    open_after_password(dora, "/accounts/2fa/totp/activate/")
    secret = page.input_value("#authenticator_secret")
    expect(page.locator("main img")).to_be_visible()
    page.fill("input[name=code]", app_code(secret))
    submit(dora)
    codes = page.input_value("#recovery_codes").split()
    assert len(codes) == 10
    sign_out(dora)

    enter_password(dora)
    page.wait_for_url("**/2fa/authenticate/")
    page.fill("input[name=code]", "000000")
    submit(dora)
    expect(page.get_by_text("Incorrect code.")).to_be_visible()
    page.fill("input[name=code]", codes[0])
    submit(dora)
    page.wait_for_url(IN_A_WORKSPACE)


def test_a_passkey_is_added_to_an_account_as_the_second_step(dora: Person) -> None:
    page = dora.page
    dora.sign_up()
    open_after_password(dora, "/accounts/2fa/webauthn/add/")
    page.fill("input[name=name]", "Key on my ring")
    page.uncheck("input[name=passwordless]")
    page.click("#mfa_webauthn_add")
    page.wait_for_url("**/recovery-codes/")
    dora.go("/accounts/2fa/webauthn/")
    expect(page.get_by_text("Key on my ring").first).to_be_visible()
    expect(page.get_by_text("Second step")).to_be_visible()
    sign_out(dora)

    enter_password(dora)
    page.click("#mfa_webauthn_authenticate")
    page.wait_for_url(IN_A_WORKSPACE)


def test_a_page_left_open_says_why_a_click_did_nothing(alice: Person) -> None:
    alice.upload(samples.path("pal_25.mp4"))
    page, video_page = alice.page, alice.page.url
    order = page.get_by_role("button", name="Restore for 5 credits")
    refusal = page.get_by_role("alert")
    alice.context.set_offline(True)
    order.click()
    expect(refusal).to_contain_text("Check your connection")
    alice.context.set_offline(False)

    home = alice.open_page()
    home.goto(alice.address)
    alice.page = alice.open_page()
    sign_out(alice)
    enter_password(alice)
    alice.page.wait_for_url(IN_A_WORKSPACE)
    home.set_input_files("[data-file-input]", samples.path("pal_25.mp4"))
    expect(home.locator("[data-upload-list]")).to_contain_text(
        "You have signed out, or may not upload here any more."
    )
    order.click()
    expect(refusal).to_contain_text("For your safety the form was not accepted.")
    expect(refusal).to_be_in_viewport()

    sign_out(alice)
    page.locator("label:has(input[value='1080p'])").click()
    page.wait_for_url(f"**/accounts/login/?next={video_page.removeprefix(alice.address)}")
