"""Somebody who uses the running site by HTTP, without a browser."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from pathlib import Path

import httpx

from tests.services.processes import wait_until
from tests.services.product import Product
from tests.services.smtp import Mailbox, code_in

PASSWORD = "correct horse battery"
FINAL = ("succeeded", "failed", "cancelled")


_seeds = itertools.count(1)


class Visitor:
    """Signs up, uploads, orders, reads pages."""

    def __init__(self, site: Product, mails: Mailbox, email: str) -> None:
        self.site = site
        self.http = httpx.Client(base_url=site.url, follow_redirects=True, timeout=30, trust_env=False)
        self.home = self._sign_up(mails, email)

    def post(self, path: str, **form: str) -> httpx.Response:
        """Posts a form as the page's own would."""
        return self.http.post(path, data=form, headers=self._token())

    def upload(self, file: Path) -> str:
        """Uploads a file in its parts and returns the video's page, once it is ready."""
        content = file.read_bytes()
        begun = self._json(f"{self.home}uploads/", file_name=file.name, size_bytes=len(content))
        size = begun["part_bytes"]
        parts = []
        for number in range(1, -(-len(content) // size) + 1):
            address = self._json(f"{begun['urls']['parts']}{number}/")["url"]
            answer = self.http.put(address, content=content[(number - 1) * size : number * size])
            answer.raise_for_status()
            parts.append({"PartNumber": number, "ETag": answer.headers["etag"]})
        page: str = self._json(begun["urls"]["complete"], parts=parts)["video_url"]
        self._wait(lambda: "Restore for" in self._text(page), f"{page} is not ready", 60)
        return page

    def order(self, video_page: str, preset: str = "720p", *, while_away: float = 0) -> str:
        """Orders a restoration and returns its page; each with a seed of its own, or the second would be the first.

        A person whose browser says that the site is away presses the button again, for `while_away` seconds.
        """
        form = {"preset": preset, "seed": str(next(_seeds))}
        deadline = time.monotonic() + while_away
        while True:
            try:
                return str(self.post(f"{video_page}restore/", **form).url.path)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def status(self, page: str) -> str:
        """Returns the restoration's status as its page shows it; nothing while the site is away."""
        found = re.search(r'data-state="([a-z]+)-', self._text(page))
        return found[1] if found else ""

    def _text(self, page: str) -> str:
        try:
            return self.http.get(page).text
        except httpx.TransportError:
            return ""

    def wait_for(self, page: str, *statuses: str, seconds: float = 120) -> str:
        """Waits until a restoration has one of these statuses and returns it."""
        self._wait(lambda: self.status(page) in statuses, f"{page} is {self.status(page)}", seconds)
        return self.status(page)

    @property
    def credits(self) -> int:
        """The balance as the statement shows it."""
        text = self.http.get(f"{self.home}credits/").text
        found = re.search(r'id="credit-badge".*?<b>([\d,]+)</b>', text, re.DOTALL)
        assert found is not None
        return int(found[1].replace(",", ""))

    def close(self) -> None:
        """Closes the connections."""
        self.http.close()

    def _sign_up(self, mails: Mailbox, email: str) -> str:
        self.http.get("/accounts/signup/")
        self.post("/accounts/signup/", email=email, password1=PASSWORD)
        code = code_in(mails.mail_to(email, about="code"))
        answer = self.post("/accounts/confirm-email/", code=code)
        assert "/w/" in answer.url.path, answer.url
        return answer.url.path

    def _json(self, path: str, **body: object) -> dict[str, object] | dict[str, str]:
        answer = self._post_as_uploader(path, json.dumps(body))
        assert answer.status_code in (200, 201), answer.text
        document: dict[str, object] = answer.json()
        return document

    def _post_as_uploader(self, path: str, content: str) -> httpx.Response:
        """Posts until there is an answer: the page's uploader does so too, and all of its requests may be repeated."""
        for _ in range(60):
            with contextlib.suppress(httpx.TransportError):
                return self.http.post(path, content=content, headers=self._token())
            time.sleep(0.5)
        raise AssertionError(f"{path} does not answer")

    def _token(self) -> dict[str, str]:
        return {"X-CSRFToken": self.http.cookies.get("csrftoken") or "", "Referer": self.site.url}

    def _wait(self, condition: object, problem: str, seconds: float) -> None:
        wait_until(
            condition, seconds=seconds, otherwise=lambda: AssertionError(f"{problem} after {seconds} s")
        )
