"""`manage.py serve`: the whole product on this machine until Ctrl-C; `make run` calls it."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import connections

from seedvr_site.supervisor.child import die_with_caller
from seedvr_site.supervisor.guard import Guard
from seedvr_site.supervisor.parts import Address, product_tiers
from seedvr_site.supervisor.supervisor import CannotServe, Supervisor, installation_lock, require_free_port
from seedvr_site.supervisor.terminal import say


class Command(BaseCommand):
    help = "Starts Valkey, the site, Celery, the local endpoint and a GPU worker, and keeps them running."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on")
        parser.add_argument(
            "--stop-with-parent", action="store_true", help="stop when the calling process ends"
        )

    def handle(self, *, host: str, port: int, stop_with_parent: bool, **_options: Any) -> None:
        """Runs until a signal; ends with status 1 and a sentence when the product cannot start."""
        if stop_with_parent:
            die_with_caller()
        site_url = os.environ.get("SITE_URL") or f"http://{_known_as(host)}:{port}"
        try:
            serve(Address(host=host, port=port, site_url=site_url.rstrip("/")))
        except CannotServe as exc:
            raise CommandError(str(exc)) from exc
        say("Stopped")


def serve(address: Address) -> None:
    """Runs the product at this address until a signal. Raises `CannotServe`."""
    var_dir = settings.VAR_DIR
    var_dir.mkdir(parents=True, exist_ok=True)
    with installation_lock(var_dir) as lock:
        require_free_port(address.host, address.port)
        say(f"{settings.PRODUCT_NAME} is starting; logs are in {var_dir / 'log'}")
        guard = Guard(inherited=[lock])
        try:
            Supervisor(
                tiers=product_tiers(address=address, var_dir=var_dir, environment=os.environ),
                folder=settings.BASE_DIR,
                var_dir=var_dir,
                guard=guard,
                migrate=migrate,
            ).run(ready_line=f"{settings.PRODUCT_NAME} is ready: {address.site_url} (Ctrl-C stops it)")
        finally:
            guard.close()


def migrate() -> None:
    """Brings the database up to date."""
    call_command("migrate", verbosity=0, interactive=False)
    for connection in connections.all(initialized_only=True):
        connection.close()
        # PostgreSQL's pool has threads, which the processes forked from now on must not inherit.
        if close_pool := getattr(connection, "close_pool", None):
            close_pool()


def _known_as(host: str) -> str:
    """Returns how a browser on this machine names the address that the site listens on."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"[{name}]" if ":" in name else name
