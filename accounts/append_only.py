"""Rows that are added and read, never changed: the ledger of credits and the audit log.

The model refuses, and so does a trigger in the database: migrations put `refuse_changes` on the table, and
`allow_changes` where Django has to make the table anew, as SQLite does for a change of it.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from accounts.querysets import TenantQuerySet

M = TypeVar("M", bound=models.Model)


class IsAppendOnly(TypeError):
    """Somebody tried to change or delete a row that stands for good; add a new one instead."""


class AppendOnlyQuerySet(TenantQuerySet[M]):
    """Rows that can be read and added, nothing else."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise IsAppendOnly(f"{self.model._meta.verbose_name_plural} are never updated")

    def delete(self) -> NoReturn:
        raise IsAppendOnly(f"{self.model._meta.verbose_name_plural} are never deleted")


class AppendOnlyRow(models.Model):
    """A row that stands as it was written."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise IsAppendOnly(f"{self._meta.verbose_name_plural} are never updated")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise IsAppendOnly(f"{self._meta.verbose_name_plural} are never deleted")


# --- The trigger --------------------------------------------------------------------------------------------


def refuse_changes(table: str, sentence: str, *, function_of: str = "") -> migrations.RunPython:
    """Returns the migration's step after which the database refuses to change or delete rows of a table.

    `sentence` is its error. PostgreSQL's trigger takes the function of another table where `function_of` names one.
    """
    return migrations.RunPython(
        lambda _apps, editor: _execute(editor, _make(table, sentence, function_of)),
        lambda _apps, editor: _execute(editor, _drop(table, function_of)),
    )


def allow_changes(table: str, sentence: str) -> migrations.RunPython:
    """Returns the step that takes `refuse_changes` back."""
    refusing = refuse_changes(table, sentence)
    assert refusing.reverse_code is not None
    return migrations.RunPython(refusing.reverse_code, refusing.code)


def _execute(editor: BaseDatabaseSchemaEditor, statements: dict[str, list[str]]) -> None:
    for statement in statements[editor.connection.vendor]:
        editor.execute(statement)


def _make(table: str, sentence: str, function_of: str) -> dict[str, list[str]]:
    function = f"""
        CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{sentence}'; END $$
        """
    trigger = f"""
        CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION {function_of or table}_refuse()
        """
    sqlite = [
        f"""
        CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}
        BEGIN SELECT RAISE(ABORT, '{sentence}'); END
        """
        for verb in ("UPDATE", "DELETE")
    ]
    return {"sqlite": sqlite, "postgresql": [trigger] if function_of else [function, trigger]}


def _drop(table: str, function_of: str) -> dict[str, list[str]]:
    trigger, function = f"DROP TRIGGER {table}_append_only ON {table}", f"DROP FUNCTION {table}_refuse"
    return {
        "sqlite": [f"DROP TRIGGER {table}_no_{verb}" for verb in ("update", "delete")],
        "postgresql": [trigger] if function_of else [trigger, function],
    }
