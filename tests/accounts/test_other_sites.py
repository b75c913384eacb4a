"""Google and GitHub, played by a server on this machine that answers as they document it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers.github.views import GitHubOAuth2Adapter
from allauth.socialaccount.providers.google.views import GoogleOAuth2Adapter
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts.models import Membership, User
from accounts.second_factor import has_second_factor
from billing import ledger
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db
SignIn = Callable[[User], Client]
CODE = "code-of-one-sign-in"
EMAIL = "dora@example.com"


class OtherSite(ThreadingHTTPServer):
    """What both sites say to our server, and what it asked them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.is_down = False
        self.email = EMAIL
        self.is_verified = True
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: OtherSite

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append((self.path, form))
        if form.get("code") != [CODE] or self.server.is_down:
            self._say(400, {"error": "bad_verification_code", "error_description": "vendor words"})
            return
        claims = {
            "iss": "https://accounts.google.com",
            "aud": "google-id",
            "sub": "1001",
            "email": self.server.email,
            "email_verified": self.server.is_verified,
            "exp": 4_000_000_000,
            "iat": 1,
        }
        token = jwt.encode(claims, "a key of Google's, which nobody here knows")
        self._say(
            200, {"access_token": "token", "token_type": "bearer", "id_token": token, "expires_in": 3600}
        )

    def do_GET(self) -> None:
        assert self.headers["Authorization"] == "token token"
        email = {"email": self.server.email, "primary": True, "verified": self.server.is_verified}
        person = {"id": 1001, "login": "dora", "name": "Dora", "email": None}
        self._say(200, [email] if self.path.endswith("/emails") else person)

    def _say(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@pytest.fixture
def other(settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtherSite]:
    """Both sites, with keys for them."""
    server = OtherSite()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    providers = {name: dict(values) for name, values in settings.SOCIALACCOUNT_PROVIDERS.items()}
    for name in ("google", "github"):
        providers[name]["APPS"] = [{"client_id": f"{name}-id", "secret": f"{name}-secret"}]
    settings.SOCIALACCOUNT_PROVIDERS = providers
    monkeypatch.setattr(GoogleOAuth2Adapter, "access_token_url", f"{server.url}/token")
    monkeypatch.setattr(GitHubOAuth2Adapter, "access_token_url", f"{server.url}/token")
    monkeypatch.setattr(GitHubOAuth2Adapter, "profile_url", f"{server.url}/user")
    monkeypatch.setattr(GitHubOAuth2Adapter, "emails_url", f"{server.url}/user/emails")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def go_there(client: Client, name: str, **form: str) -> dict[str, list[str]]:
    """Presses the button; returns what the other site is told by the browser."""
    answer = client.post(reverse(f"{name}_login"), form)
    assert answer.status_code == 302
    return parse_qs(urlsplit(answer["Location"]).query)


def come_back(client: Client, name: str, **query: str):
    return client.get(reverse(f"{name}_callback"), query, follow=True)


SITES = ["google", "github"]


@pytest.mark.parametrize("name", SITES)
def test_a_new_person_comes_in_with_a_workspace(other: OtherSite, client: Client, name: str) -> None:
    page = client.get(reverse("account_login")).content.decode()
    assert f'action="{reverse(f"{name}_login")}' in page
    told = go_there(client, name)
    assert told["client_id"] == [f"{name}-id"]
    assert told["code_challenge_method"] == ["S256"]
    page = come_back(client, name, code=CODE, state=told["state"][0])
    user = User.objects.get(email=EMAIL)
    workspace = Membership.objects.get(user=user).workspace
    assert page.redirect_chain[-1][0] == workspace.get_absolute_url()
    assert ledger.balance(workspace) == 300
    [(_path, form)] = [asked for asked in other.asked if asked[0] == "/token"]
    assert len(form["code_verifier"][0]) > 40
    come_back(Client(), name, code=CODE, state=told["state"][0])
    assert User.objects.count() == 1


@pytest.mark.parametrize("name", SITES)
def test_an_answer_that_we_did_not_ask_for_signs_nobody_in(
    other: OtherSite, client: Client, name: str
) -> None:
    go_there(client, name)
    page = come_back(client, name, code=CODE, state="planted")
    assert "The other site could not sign you in" in page.content.decode()
    assert not User.objects.exists()


@pytest.mark.parametrize("name", SITES)
def test_a_refusal_there_is_said_in_our_words(other: OtherSite, client: Client, name: str) -> None:
    other.is_down = True
    page = come_back(client, name, code=CODE, state=go_there(client, name)["state"][0]).content.decode()
    assert "The other site could not sign you in" in page
    assert "vendor words" not in page
    denied = go_there(client, name)["state"][0]
    page = come_back(client, name, error="access_denied", state=denied).content.decode()
    assert "You have stopped signing in with the other site." in page


@pytest.mark.parametrize("name", SITES)
def test_an_account_with_the_same_address_is_not_taken_over(
    other: OtherSite, client: Client, alice: User, name: str
) -> None:
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    other.email = alice.email
    come_back(client, name, code=CODE, state=go_there(client, name)["state"][0])
    assert "_auth_user_id" not in client.session
    assert not SocialAccount.objects.filter(user=alice).exists()
    assert [m.to for m in mail.outbox] in ([], [[alice.email]])


def test_an_address_that_is_not_proved_there_is_proved_here(other: OtherSite, client: Client) -> None:
    other.is_verified = False
    page = come_back(client, "google", code=CODE, state=go_there(client, "google")["state"][0])
    assert "Check your mail" in page.content.decode()
    assert "_auth_user_id" not in client.session
    assert not has_second_factor(User.objects.get())


def test_adding_another_site_asks_again_first(other: OtherSite, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    told = go_there(browser, "google", process="connect")
    page = come_back(browser, "google", code=CODE, state=told["state"][0])
    assert page.request["PATH_INFO"] == reverse("account_reauthenticate")
    assert not SocialAccount.objects.exists()
    browser.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    assert SocialAccount.objects.get().user == alice
