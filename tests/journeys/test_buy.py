"""Buying what is missing: from the form over Stripe's page and back, with webhooks that come twice and shuffled."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests import samples
from tests.journeys.conftest import Person
from tests.services.processes import wait_until
from tests.services.product import Product, product
from tests.services.smtp import Mailbox
from tests.stripe_twin.books import Books
from tests.stripe_twin.server import KEY, WEBHOOK_SECRET, deliveries, stripe_twin

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]
STARTER = 5


@pytest.fixture(scope="module")
def twin() -> Iterator[Books]:
    with stripe_twin() as books:
        yield books


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, mails: Mailbox, twin: Books) -> Iterator[Product]:
    """The product with keys for the twin, which gives newcomers next to nothing."""
    environment = {
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(mails.port),
        "STARTER_CREDITS": str(STARTER),
        "STRIPE_SECRET_KEY": KEY,
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "STRIPE_API_BASE": twin.url,
    }
    with (
        product(tmp_path_factory.mktemp("shop"), environment=environment) as running,
        deliveries(twin, f"{running.url}/hooks/stripe/"),
    ):
        yield running


@pytest.fixture
def buyer(browser: Browser, shop: Product, mails: Mailbox) -> Iterator[Person]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    person = Person(context, shop, mails)
    person.sign_up()
    yield person
    context.close()


def wait_for_credits(person: Person, credits: int) -> None:
    wait_until(
        lambda: person.credits == credits,
        seconds=30,
        otherwise=lambda: AssertionError(f"{person.credits} credits, not {credits}"),
    )


def test_what_is_missing_is_bought_and_the_form_is_as_it_was(buyer: Person, twin: Books) -> None:
    page = buyer.page
    buyer.choose(samples.path("bigbuckbunny.mp4"))
    page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"))
    expect(page.locator("#quote button.button-primary")).to_be_visible(timeout=20_000)
    page.locator("label:has(input[name=preset][value='720p'])").click()
    expect(page.locator("#quote")).to_contain_text("8 credits are missing")
    page.click("summary:has-text('More settings')")
    page.fill("input[name=seed]", "77")
    page.select_option("select[name=output]", "prores")
    expect(page.locator("#quote")).to_contain_text("ProRes")
    page.wait_for_load_state("networkidle")
    page.click("#quote button:has-text('Buy 8 credits')")
    page.wait_for_url(re.compile(r"/credits/buy/"))
    page.locator("li.price", has_text="Enough for your video").get_by_role("button").click()

    page.wait_for_url(re.compile(r"/pay/cs_test_"))
    page.fill("input[name=card]", "4000 0000 0000 0002")
    page.click("button")
    expect(page.get_by_role("alert")).to_have_text("Your card was declined.")
    page.fill("input[name=card]", "4242 4242 4242 4242")
    page.click("button")

    page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/\?"))
    expect(page.locator("#messages")).to_contain_text("500 credits were added.")
    expect(page.locator("input[name=preset][value='720p']")).to_be_checked()
    assert page.input_value("input[name=seed]") == "77"
    assert page.input_value("select[name=output]") == "prores"
    page.click("#quote button:has-text('Restore for 13 credits')")
    page.wait_for_url(re.compile(r"/restorations/[0-9a-f-]+/$"))
    assert buyer.credits == STARTER + 500 - 13

    page.click("#credit-badge")
    expect(page.locator(".ledger")).to_contain_text("Purchase")
    page.locator(".ledger").get_by_role("link", name="Purchase").click()
    expect(page.get_by_role("link", name="Invoice")).to_be_visible()

    # The money goes back at Stripe: all 500 were bought, 13 of them and the gift are spent, and the rest is owed.
    [payment] = twin.all("payment_intent")
    twin.refund(payment["id"])
    wait_for_credits(buyer, 0)
    page.click("#credit-badge")
    expect(page.locator("main")).to_contain_text("8 credits were spent before their payment was returned")
    assert buyer.problems == []
