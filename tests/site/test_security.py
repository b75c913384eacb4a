"""What protects every page: headers, hosts, tokens on changes, sockets' origins, secrets, silence about errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, include, path, reverse

from accounts import invitations
from accounts.models import User, Workspace
from restorations.routing import websocket_urlpatterns
from seedvr_site import env
from seedvr_site.asgi import application
from seedvr_site.settings import base
from tests.architecture.test_addresses import DOORS, Places
from tests.factories import PASSWORD

ROOT = Path(__file__).resolve().parent.parent.parent
SignIn = Callable[[User], Client]
PRODUCTION = {
    "PATH": os.environ["PATH"],
    "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.prod",
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz" * 2,
    "SITE_URL": "https://restore.example.com",
    "DATABASE_URL": "postgres://site:secret@127.0.0.1:1/site",
    "RUNPOD_ENDPOINT_ID": "endpoint",
    "RUNPOD_API_KEY": "key",
}
#: Views that take changes without Django's token, each because of a secret of its own.
WITHOUT_TOKEN = {"runpod-webhook", "stripe-webhook", "unsubscribe"}


def run(*command: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Runs Python as production would, without a database."""
    merged = {**PRODUCTION, "VAR_DIR": os.environ["VAR_DIR"], **changes}
    environment = {name: value for name, value in merged.items() if value is not None}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


# --- Production ---------------------------------------------------------------------------------------------


@pytest.mark.services
def test_django_finds_nothing_to_say_about_production() -> None:
    result = run("manage.py", "check", "--deploy", "--fail-level", "DEBUG")
    assert result.returncode == 0, result.stderr
    assert "no issues (0 silenced)" in result.stdout


@pytest.mark.services
def test_production_speaks_https_only() -> None:
    script = """
import django, json
django.setup()
from django.conf import settings
from django.test import Client
plain = Client().get("/healthz", headers={"Host": "restore.example.com"})
secure = Client().get("/healthz", headers={"Host": "restore.example.com", "X-Forwarded-Proto": "https"})
names = [name for name in dir(settings) if name.startswith(("SESSION_COOKIE", "CSRF_COOKIE"))]
cookies = {name: getattr(settings, name) for name in names}
print(json.dumps([plain.status_code, plain["Location"], dict(secure.headers), cookies], default=str))
"""
    result = run("-c", script)
    assert result.returncode == 0, result.stderr
    status, location, headers, cookies = json.loads(result.stdout)
    assert (status, location) == (301, "https://restore.example.com/healthz")
    assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains; preload"
    for kind in ("SESSION", "CSRF"):
        assert cookies[f"{kind}_COOKIE_SECURE"]
        assert cookies[f"{kind}_COOKIE_HTTPONLY"]
        assert cookies[f"{kind}_COOKIE_SAMESITE"] == "Lax"
        assert cookies[f"{kind}_COOKIE_NAME"].startswith("__Host-")
        assert (cookies[f"{kind}_COOKIE_DOMAIN"], cookies[f"{kind}_COOKIE_PATH"]) == (None, "/")


@pytest.mark.services
@pytest.mark.parametrize("name", ["SECRET_KEY", "RUNPOD_API_KEY"])
def test_a_secret_that_is_missing_is_named(name: str) -> None:
    result = run("-c", "import django; django.setup()", **{name: None})
    assert result.returncode == 1
    assert f"{name} is not set; set it, or set {name}_FILE to a file that holds it" in result.stderr


@pytest.mark.services
@pytest.mark.parametrize("name", ["DATABASE_URL", "RUNPOD_API_KEY"])
def test_a_secret_whose_file_is_empty_is_named(name: str, tmp_path: Path) -> None:
    empty = tmp_path / "secret"
    empty.touch()
    result = run("-c", "import django; django.setup()", **{name: None, f"{name}_FILE": str(empty)})
    assert result.returncode == 1
    assert f"{name} is empty" in result.stderr


@pytest.mark.services
def test_an_address_without_https_is_refused() -> None:
    result = run("-c", "import django; django.setup()", SITE_URL="http://restore.example.com")
    assert "production is served by https:// only" in result.stderr


def test_the_databases_address_is_read_as_libpq_reads_it() -> None:
    read = base.postgres("postgres://site%40eu:p%40ss%2Fword@db.example.com:5433/restore?sslmode=verify-full")
    assert (read["USER"], read["PASSWORD"], read["HOST"]) == ("site@eu", "p@ss/word", "db.example.com")
    assert read["OPTIONS"]["sslmode"] == "verify-full"


def test_secrets_come_from_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.setenv("SOME_SECRET", "from the environment")
    monkeypatch.setenv("SOME_SECRET_FILE", str(tmp_path / "key"))
    assert env.text("SOME_SECRET") == "from a file"
    monkeypatch.setenv("SOME_SECRET_FILE", str(tmp_path / "missing"))
    with pytest.raises(ImproperlyConfigured, match=r"SOME_SECRET_FILE names .*missing, which cannot be read"):
        env.text("SOME_SECRET")


# --- Headers ------------------------------------------------------------------------------------------------


def policy(response: HttpResponse) -> dict[str, list[str]]:
    directives = (part.split() for part in response.headers["Content-Security-Policy"].split(";"))
    return {words[0]: words[1:] for words in directives}


def test_only_scripts_that_the_page_names_run(client: Client, db: None) -> None:
    seen = set()
    for _ in range(2):
        response = client.get(reverse("account_login"))
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        [source] = policy(response)["script-src"]
        nonce = re.fullmatch(r"'nonce-(.{20,})'", source)[1]
        scripts = re.findall(r"<script\b[^>]*>", response.content.decode())
        for script in scripts:
            assert f'nonce="{nonce}"' in script or 'type="application/json"' in script, script
        assert len(scripts) > 5
        seen.add(nonce)
    assert len(seen) == 2, "a nonce is for one page"


def test_every_answer_carries_the_policies(client: Client, db: None) -> None:
    for where, status in (("/", 200), ("/nothing/", 404), ("/settings/", 302), ("/healthz", 200)):
        response = client.get(where)
        assert response.status_code == status
        rules = policy(response)
        for name in ("default-src", "base-uri", "frame-ancestors"):
            assert rules[name] == ["'none'"]
        expected = {
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cache-Control": "private, no-cache",
        }
        assert expected.items() <= dict(response.headers).items()
        assert "camera=()" in response.headers["Permissions-Policy"]


def test_operators_use_the_door_that_asks_for_the_second_step(
    client: Client, alice: User, operator: User, signed_in: SignIn
) -> None:
    assert client.get(reverse("admin:index"), follow=True).request["PATH_INFO"] == reverse("account_login")
    form = {"username": alice.email, "password": PASSWORD}
    assert client.post(reverse("admin:login"), form)["Location"].startswith(reverse("account_login"))
    page = signed_in(operator).get(reverse("admin:index"))
    assert page.status_code == 200
    assert policy(page)["script-src"] == ["'self'"]


@pytest.mark.parametrize("is_superuser", [True, False])
def test_operations_are_closed_to_staff_without_a_second_step(
    is_superuser: bool, alice: User, signed_in: SignIn, settings: Any
) -> None:
    """A superuser of `createsuperuser` is one of them."""
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=is_superuser)
    browser = signed_in(alice)
    page = browser.get(reverse("admin:index"), follow=True)
    assert page.request["PATH_INFO"] == reverse("mfa_index")
    assert "Operations need a second step" in page.content.decode()
    grant = reverse("admin:billing_creditentry_add")
    assert browser.post(grant, {"credits": "250"})["Location"] == reverse("mfa_index")
    assert browser.post(reverse("admin:logout")).status_code == 200
    browser = signed_in(alice)
    settings.OPERATORS_NEED_SECOND_FACTOR = False
    assert browser.get(reverse("admin:index")).status_code == 200
    settings.OPERATORS_NEED_SECOND_FACTOR = True
    TOTP.activate(alice, generate_totp_secret())
    assert browser.get(reverse("admin:index")).status_code == 200


# --- Requests that come from elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "a b"])
def test_another_host_is_not_answered(client: Client, db: None, host: str) -> None:
    response = client.get(reverse("account_login"), headers={"Host": host})
    assert response.status_code == 400
    assert "evil" not in response.content.decode()


def views(resolver: URLResolver) -> Iterator[tuple[str, Callable[..., HttpResponse]]]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from views(pattern)
        else:
            assert isinstance(pattern, URLPattern)
            yield pattern.name or str(pattern.pattern), pattern.callback


def test_no_view_gives_up_the_token_but_those_with_a_secret_of_their_own() -> None:
    # Google's One Tap posts from Google's page, with a token of its own; it answers 404 here, as it is not configured.
    exempt = {name for name, view in views(get_resolver()) if getattr(view, "csrf_exempt", False)}
    assert exempt - {"google_login_by_token"} == WITHOUT_TOKEN


def changing_paths(places: Places) -> dict[str, tuple[str, str]]:
    ours = {
        name: (door.method, places.path(name))
        for name, door in DOORS.items()
        if door.method != "GET" and name not in WITHOUT_TOKEN | {"invitation-accept"}
    }
    accept = reverse("invitation-accept", args=[invitations.token_of(places.invitation)])
    ours["invitation-accept"] = ("POST", accept)
    names = (
        *("account_login", "account_logout", "account_signup", "account_reset_password", "account_email"),
        *(
            "account_change_password",
            "account_reauthenticate",
            "account_reauthenticate_by_mail",
            "mfa_activate_totp",
            "mfa_add_webauthn",
        ),
        *("mfa_generate_recovery_codes", "usersessions_list", "socialaccount_connections", "google_login"),
        *("preferences", "account-delete"),
    )
    return ours | {name: ("POST", reverse(name)) for name in names}


def test_changes_without_the_pages_token_are_refused(
    workspace: Workspace, alice: User, signed_in: SignIn
) -> None:
    paths = changing_paths(Places(workspace))
    assert len(paths) > 30
    session = signed_in(alice).cookies
    for name, (method, where) in paths.items():
        client = Client(enforce_csrf_checks=True)
        client.cookies = session
        for headers in ({}, {"Origin": "https://evil.example"}):
            answer = client.generic(method, where, "{}", content_type="application/json", headers=headers)
            assert answer.status_code == 403, name
            assert "open for too long" in answer.content.decode(), name


@pytest.mark.parametrize(
    "way", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "http:evil"]
)
def test_buying_leads_nowhere_else(alice: User, workspace: Workspace, signed_in: SignIn, way: str) -> None:
    page = signed_in(alice).get(reverse("credit-buy", args=[workspace.slug]), {"next": way})
    assert "evil" not in page.content.decode()
    assert "alert(1)" not in page.content.decode()


async def first_answer(where: str, origin: bytes | None) -> str:
    headers = [(b"host", settings.SITE_URL.encode().partition(b"://")[2])]
    if origin is not None:
        headers.append((b"origin", origin))
    scope = {"type": "websocket", "path": where, "query_string": b"", "headers": headers, "subprotocols": []}
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "websocket.connect"})
    message = await communicator.receive_output(timeout=5)
    communicator.stop(exceptions=False)
    return str(message["type"])


@pytest.mark.parametrize(
    "origin", [b"https://evil.example", b"https://127.0.0.1.evil.example", b"null", None]
)
async def test_sockets_refuse_pages_of_others_before_they_look_at_anything(origin: bytes | None) -> None:
    for pattern in websocket_urlpatterns:
        where = "/" + re.sub(r"<[^>]+>", "00000000-0000-0000-0000-000000000000", str(pattern.pattern))
        # Without a database: a page of ours would be asked who looks at it, which fails here.
        assert await first_answer(where, origin) == "websocket.close"


# --- Errors -------------------------------------------------------------------------------------------------


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("stripe said: No such customer cus_123; at /srv/site/billing/views.py")


urlpatterns = [path("broken/", broken), path("", include("seedvr_site.urls"))]


def test_an_error_of_ours_tells_nothing_about_itself(db: None, settings, caplog) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "SignIn" not in name]
    response = Client(raise_request_exception=False).get("/broken/")
    assert response.status_code == 500
    text = response.content.decode()
    assert "Something went wrong on our side" in text
    for inside in ("stripe", "cus_123", "RuntimeError", "Traceback", "/srv/", "<script"):
        assert inside not in text
    assert "cus_123" in caplog.text, "the log has it"
