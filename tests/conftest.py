"""The cast, and the real servers that every test process has to itself.

Settings read the environment when they are loaded, so each process first starts its servers, then Django.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import hypothesis
import pytest

from tests.services.chromium import chromium
from tests.services.network import refuse_network
from tests.services.postgres import postgres
from tests.services.valkey import valkey

if TYPE_CHECKING:
    from django.test import Client

    from accounts.models import User, Workspace

#: What a person may have set for a site of their own; no test run reaches for that one.
FOREIGN_VARIABLES = (
    *("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL", "VAR_DIR", "SITE_URL", "ALLOWED_HOSTS"),
    *("RUNPOD_BASE_URL", "RUNPOD_ENDPOINT_ID", "RUNPOD_API_KEY", "RESTORATION_ENGINE", "EMAIL_HOST"),
    *("S3_BUCKET", "S3_ENDPOINT_URL", "S3_PUBLIC_ENDPOINT_URL", "S3_REGION", "S3_PART_CHECKSUMS"),
    *("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"),
    *("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_API_BASE", "STRIPE_AUTOMATIC_TAX"),
)
#: The networks' tests import PyTorch, which only `make test` installs; their own lane fails without it.
HAS_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore = [] if HAS_TORCH else ["gpu_worker/networks"]
#: Markers of tests that are left out, when that is, and why.
LEFT_OUT = {
    "gpu": (lambda: not Path("/dev/nvidia0").exists(), "Without a CUDA device"),
    "heavy": (lambda: not os.environ.get("FAULTS"), "Without FAULTS=1 (`make faults`)"),
}
_servers = ExitStack()
# By default an example that takes 0.2 seconds fails, which is a matter of the machine.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres", action="store_true", help="run on PostgreSQL instead of SQLite")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Starts this process's servers and loads the settings, before anything of the site is imported."""
    if not is_xdist_worker(config):
        for name in FOREIGN_VARIABLES:
            os.environ.pop(name, None)
        if config.getoption("--postgres"):
            # One server for all processes: pytest-django gives each a database of its own.
            os.environ["DATABASE_URL"] = _servers.enter_context(postgres())
    folder = Path(tempfile.mkdtemp(prefix="site-"))
    _servers.callback(shutil.rmtree, folder)
    os.environ["VAR_DIR"] = str(folder)
    os.environ["REDIS_URL"] = _servers.enter_context(valkey(folder))
    os.environ["DJANGO_SETTINGS_MODULE"] = "seedvr_site.settings.test"
    django.setup()
    # What tests do themselves is done by an operator; requests and tasks have their own scope.
    from accounts import scope

    scope.begin(scope.Scope(everything=True))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops what `pytest_configure` started."""
    _servers.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Keeps the choice of settings from workers: they would load them before they have servers of their own."""
    os.environ.pop("DJANGO_SETTINGS_MODULE")


def is_xdist_worker(config: pytest.Config) -> bool:
    """Returns whether this process was started by another test process."""
    return hasattr(config, "workerinput")


# --- Nothing is left out in silence -------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what this machine or this run cannot do; the summary says what that is."""
    markers = {marker for marker, (is_left_out, _why) in LEFT_OUT.items() if is_left_out()}
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in markers)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what was left out, and why that is not good enough where it is not."""
    for marker, (is_left_out, why) in LEFT_OUT.items():
        if is_left_out():
            terminalreporter.write_line(f"{why}: tests marked `{marker}` are left out.", yellow=True)
    if not HAS_TORCH:
        terminalreporter.write_line("Without PyTorch: the networks' tests are left out.", yellow=True)
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and is_ci():
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, which is a failure in CI.", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run in CI that skipped anything."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        is_ci()
        and reporter is not None
        and reporter.stats.get("skipped")
        and session.exitstatus == pytest.ExitCode.OK
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def is_ci() -> bool:
    """Returns whether nobody reads the summary."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


# --- Every test ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses connections to other machines."""
    refuse_network(monkeypatch)


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """Leaves nothing in the cache for the next test: locks and limits live there."""
    yield
    if "django.core.cache" in sys.modules:
        sys.modules["django.core.cache"].cache.clear()


@pytest.fixture(autouse=True)
def erasable_ledger(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empties the ledger after tests that commit: its trigger refuses the DELETE by which SQLite is flushed."""
    marker = request.node.get_closest_marker("django_db")
    commits = (marker and marker.kwargs.get("transaction")) or "transactional_db" in request.fixturenames
    if commits:
        request.getfixturevalue("transactional_db")
    yield
    if commits:
        erase_ledger()


def erase_ledger() -> None:
    """Deletes all entries behind the back of the triggers; PostgreSQL is flushed by TRUNCATE and needs no help."""
    from django.db import connection

    from accounts.models import AuditEntry
    from billing.models import CreditEntry, DebtEntry

    if connection.vendor != "sqlite":
        return
    for model in (CreditEntry, DebtEntry, AuditEntry):
        _erase(connection, model._meta.db_table)


def _erase(connection: Any, table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [table]
        )
        triggers = cursor.fetchall()
        for name, _sql in triggers:
            cursor.execute(f'DROP TRIGGER "{name}"')
        cursor.execute(f'DELETE FROM "{table}"')
        for _name, sql in triggers:
            cursor.execute(sql)


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    """Has Playwright use this machine's Chromium: its own ones would have to be downloaded."""
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--disable-gpu",
    ]
    # Chromium's sandbox refuses root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {"executable_path": chromium(), "args": [*quiet, *sandbox]}


# --- The cast -----------------------------------------------------------------------------------------------
# Alice owns a workspace, Bob is a member of it, Vera may only look; Charlie is a stranger with one of his own.
# The models are imported late: this file is loaded before the settings are.


@pytest.fixture
def alice(db: None) -> User:
    """The owner of a workspace, with starter credits."""
    return _person("alice@example.com")


@pytest.fixture
def workspace(alice: User) -> Workspace:
    """Alice's workspace."""
    return _workspace_of(alice)


@pytest.fixture
def bob(workspace: Workspace) -> User:
    """A member of Alice's workspace, who may spend its credits."""
    return _join(_person("bob@example.com"), workspace, "member")


@pytest.fixture
def vera(workspace: Workspace) -> User:
    """A viewer in Alice's workspace."""
    return _join(_person("vera@example.com"), workspace, "viewer")


@pytest.fixture
def in_role(alice: User, workspace: Workspace) -> Callable[[str], User]:
    """Returns somebody with this role in Alice's workspace."""

    def find(role: str) -> User:
        return alice if role == "owner" else _join(_person(f"{role}@example.com"), workspace, role)

    return find


@pytest.fixture
def charlie(db: None) -> User:
    """A stranger: somebody with a workspace of his own."""
    return _person("charlie@example.com")


@pytest.fixture
def operator(db: None) -> User:
    """Staff who may everything under Operations, with the second step that they need for it."""
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    from accounts.models import User

    person = User.objects.create_superuser("operator@example.com")
    TOTP.activate(person, generate_totp_secret())
    return person


@pytest.fixture
def signed_in() -> Callable[[User], Client]:
    """Returns a browser for somebody who has signed in."""
    from django.test import Client

    def sign_in(person: User) -> Client:
        client = Client()
        client.force_login(person)
        return client

    return sign_in


def _person(email: str) -> User:
    from tests.factories import UserFactory

    person = UserFactory(email=email)
    _workspace_of(person)
    return person


def _workspace_of(person: User) -> Workspace:
    from accounts.workspaces import personal_workspace

    return personal_workspace(person)


def _join(person: User, workspace: Workspace, role: str) -> User:
    from tests.factories import MembershipFactory

    MembershipFactory(workspace=workspace, user=person, role=role)
    return person
