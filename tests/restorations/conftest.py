"""Browsers of the cast."""

import importlib

import pytest
from django.db import connection


@pytest.fixture
def alice_client(signed_in, alice):
    return signed_in(alice)


@pytest.fixture
def bob_client(signed_in, bob):
    return signed_in(bob)


@pytest.fixture
def vera_client(signed_in, vera):
    return signed_in(vera)


@pytest.fixture
def charlie_client(signed_in, charlie):
    return signed_in(charlie)


@pytest.fixture
def committed_db(ledger_triggers, transactional_db):
    """A database whose commits other threads see.

    SQLite empties it by DELETE after the test, which the ledger's triggers refuse: they step aside for that.
    """
    yield
    _run_on_sqlite("SQLITE_BACK")


@pytest.fixture
def ledger_triggers(django_db_setup, django_db_blocker):
    """Puts the triggers back once the database is empty."""
    yield
    with django_db_blocker.unblock():
        _run_on_sqlite("SQLITE")


def _run_on_sqlite(statements):
    if connection.vendor == "sqlite":
        migration = importlib.import_module("billing.migrations.0002_ledger_is_append_only")
        with connection.cursor() as cursor:
            for statement in getattr(migration, statements):
                cursor.execute(statement)
