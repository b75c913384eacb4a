"""What row-level security costs: `python -m tests.benchmarks.walls` times pages on PostgreSQL with and without it.

Without means: the policies are off, and the connection is told nothing. Both are timed in turn, so that a machine
that is busy with something else is so for both. `make bench` runs this as well.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.services.postgres import postgres
from tests.services.valkey import valkey

NUM_RESTORATIONS: Final = 10_000
ROUNDS: Final = 10
LOADS: Final = 8


def measure() -> dict[str, float]:
    """Returns the medians of each page in ms, with and without walls."""
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client

    from accounts import scope
    from accounts.workspaces import personal_workspace
    from restorations.models import Restoration
    from tests.factories import RestorationFactory, UserFactory

    scope.begin(scope.Scope(everything=True))
    call_command("migrate", verbosity=0)
    person, other = UserFactory(), UserFactory()
    for owner in (person, other):
        first = RestorationFactory(video__workspace=personal_workspace(owner))
        rows = RestorationFactory.build_batch(
            NUM_RESTORATIONS - 1, video=first.video, workspace=first.workspace
        )
        Restoration.objects.bulk_create(rows, batch_size=500)
    with connection.cursor() as cursor:
        # What autovacuum does in a server that has run for a while.
        cursor.execute("ANALYZE")
    mine = Restoration.objects.filter(workspace__memberships__user=person).latest("created_at")
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(person)
    home = mine.workspace.get_absolute_url()
    pages = {
        "workspace": home,
        "list": f"{home}restorations/",
        "restoration": mine.get_absolute_url(),
        "credits": f"{home}credits/",
        "members": f"{home}members/",
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for kind, state in (("with", nothing), ("without", no_walls)):
            with state():
                for name, path in pages.items():
                    seconds.setdefault((name, kind), []).extend(_load(client, path) for _ in range(LOADS))
    figures = {
        f"page '{name}' on PostgreSQL {kind} walls, ms": statistics.median(found) * 1000
        for (name, kind), found in seconds.items()
    }
    return figures | {"telling the scope to a connection, ms": statistics.median(_tell()) * 1000}


def _load(client: Any, path: str) -> float:
    started_at = time.perf_counter()
    assert client.get(path).status_code == 200, path
    return time.perf_counter() - started_at


def _tell() -> list[float]:
    """Times a statement that has to tell the scope first, less one that has not."""
    from django.db import connection

    from accounts import scope
    from accounts.models import Workspace

    first, second = Workspace.objects.all()[:2]
    found = []
    with connection.cursor() as cursor:
        for workspace in [first, second] * 500:
            with scope.inside(workspace):
                times = [_timed(lambda: cursor.execute("SELECT 1")) for _ in range(2)]
            found.append(times[0] - times[1])
    return found


def _timed(call: Callable[[], Any]) -> float:
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


@contextmanager
def nothing() -> Iterator[None]:
    """The product as it is."""
    yield


@contextmanager
def no_walls() -> Iterator[None]:
    """Takes the walls down for a moment."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid")
        tables = [name for (name,) in cursor.fetchall()]
        for table in tables:
            cursor.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')
    told = connection.execute_wrappers.pop(0)
    try:
        yield
    finally:
        connection.execute_wrappers.insert(0, told)
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY')


def main() -> None:
    """Starts the servers, measures, and prints one JSON line."""
    with tempfile.TemporaryDirectory() as name, postgres() as database, valkey(Path(name)) as cache:
        os.environ |= {
            "VAR_DIR": name,
            "DATABASE_URL": database,
            "REDIS_URL": cache,
            "DJANGO_SETTINGS_MODULE": "seedvr_site.settings.test",
        }
        import django

        django.setup()
        print(json.dumps({what: round(value, 3) for what, value in measure().items()}))


if __name__ == "__main__":
    main()
