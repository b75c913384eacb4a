"""What an installation has to be for its walls to hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.db import connections


@register(Tags.database)
def walls_hold(databases: Sequence[str] | None = None, **_options: Any) -> list[CheckMessage]:
    """Warns of a role in PostgreSQL that row-level security does not hold back."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "postgresql":
            continue
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
            )
            role, is_free = cursor.fetchone()
        if is_free:
            found.append(
                checks.Warning(
                    f"PostgreSQL's role {role!r} is a superuser or has BYPASSRLS: row-level security does not hold.",
                    hint="Give DATABASE_URL a role without either; it may own the database (docs/tenants.md).",
                    id="accounts.W001",
                )
            )
    return found
