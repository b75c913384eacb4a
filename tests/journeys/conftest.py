"""A running product, a mail server that it delivers to, and Chromium."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.services.films import Films, films
from tests.services.product import Product, product
from tests.services.smtp import Mailbox, code_in, mailbox

PASSWORD = "correct horse battery"
#: A quarter of a mebibyte: a small file has several parts then.
PART_BYTES = 2**18
_numbers = itertools.count(1)
_IS_OURS = re.compile(r"^script: |Content Security Policy|Permissions-Policy")


@pytest.fixture(scope="session")
def mails() -> Iterator[Mailbox]:
    with mailbox() as box:
        yield box


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Films]:
    """Another site, which has films."""
    with films(tmp_path_factory.mktemp("films")) as running:
        yield running


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, mails: Mailbox, elsewhere: Films) -> Iterator[Product]:
    environment = {
        **elsewhere.environment,
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(mails.port),
        "UPLOAD_PART_BYTES": str(PART_BYTES),
    }
    with product(tmp_path_factory.mktemp("var"), environment=environment) as running:
        yield running


class Person:
    """Somebody at a browser."""

    def __init__(self, context: BrowserContext, site: Product, mails: Mailbox) -> None:
        self.context = context
        self.site = site
        self.mails = mails
        self.email = f"person{next(_numbers)}@example.com"
        self.address = site.url
        self.problems: list[str] = []
        self.page = self.open_page()

    def open_page(self) -> Page:
        """Opens a tab; what goes wrong in it is collected."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        return page

    def go(self, path: str) -> None:
        """Opens an address of the site."""
        self.page.goto(f"{self.address}{path}")

    def sign_up(self) -> str:
        """Signs up, enters the mailed code, and returns the address of the new workspace."""
        self.go("/accounts/signup/")
        self.page.fill("input[name=email]", self.email)
        self.page.fill("input[name=password1]", PASSWORD)
        self.page.click("main form button[type=submit]")
        self.page.wait_for_url("**/confirm-email/")
        self.page.fill("input[name=code]", code_in(self.mails.mail_to(self.email, about="code")))
        self.page.click("main form button[type=submit]")
        self.page.wait_for_url("**/w/*/")
        return self.page.url.removeprefix(self.site.url)

    def choose(self, *files: Path) -> None:
        """Picks files with the file picker."""
        self.page.set_input_files("[data-file-input]", [str(file) for file in files])

    def upload(self, file: Path) -> None:
        """Uploads one file and waits until its page shows what it costs."""
        self.choose(file)
        self.page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"))
        expect(self.page.locator("#quote button.button-primary")).to_be_visible(timeout=20_000)

    def restore(self, preset: str = "720p") -> None:
        """Orders a restoration and lands on its page."""
        self.page.locator(f"label:has(input[name=preset][value='{preset}'])").click()
        expect(self.page.locator(f"input[name=preset][value='{preset}']")).to_be_checked()
        # The button waits for the quote of the new choice.
        self.page.wait_for_load_state("networkidle")
        self.page.click("#quote button.button-primary")
        self.page.wait_for_url(re.compile(r"/restorations/[0-9a-f-]+/$"))

    def wait_for_status(self, status: str, *, seconds: float = 60) -> None:
        """Waits, without a reload, until the page shows a status."""
        state = re.compile(f"^{status}-")
        expect(self.page.locator("#restoration-status")).to_have_attribute(
            "data-state", state, timeout=seconds * 1000
        )

    @property
    def credits(self) -> int:
        """The balance as the page's frame shows it."""
        self.page.reload()
        return int(re.sub(r"\D", "", self.page.locator("#credit-badge b").inner_text()))


@pytest.fixture
def newcomer(browser: Browser, site: Product, mails: Mailbox) -> Iterator[Person]:
    """Somebody who has never been here."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    person = Person(context, site, mails)
    yield person
    context.close()
    # Whatever a journey provokes: no script fails, and nothing tries what the pages' policy forbids.
    assert [problem for problem in person.problems if _IS_OURS.search(problem)] == []


@pytest.fixture
def alice(newcomer: Person) -> Person:
    """Somebody who has signed up and is on the workspace's page."""
    newcomer.sign_up()
    return newcomer
