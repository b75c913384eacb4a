"""PostgreSQL that knows the scope: before a statement, the connection is told whose rows there are if that changed.

The policies of `accounts.walls` read three settings of the session. They are told here and nowhere else, by comparing
the scope of the running thread or task (`accounts.scope`) with what this connection was told last. So it does not
matter which request or task had the connection before, in which order a thread serves several, or whether a
transaction is open:

- Outside of transactions every statement is its own one, so SET LOCAL would be over before the statement it is for.
  The settings are therefore the session's.
- Settings made in a transaction go back when it, or a savepoint in it, is rolled back, also by the COMMIT of one that
  has failed. After each rollback nothing is known of them, and the next statement tells them anew.
- A connection that comes from Django's pool was somebody else's: nothing is known of it either.

A pool outside of this process that changes sessions between transactions (PgBouncer's transaction mode) must not be
used: it would hand one request's settings to another. Its session mode is fine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from accounts import scope

_TELL: Final = (
    "SELECT set_config('tenancy.workspace', %s, false), set_config('tenancy.person', %s, false),"
    " set_config('tenancy.everything', %s, false)"
)
#: They read no rows, and in a transaction that has failed nothing else may come before them.
_CONTROL: Final = ("ROLLBACK TO", "RELEASE", "SAVEPOINT")


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that carries the scope along."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told: tuple[str, str, str] | None = None
        self.execute_wrappers.append(self._within_scope)

    def _within_scope(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        now = scope.current()
        wanted = (str(now.workspace_id or ""), str(now.person_id or ""), "on" if now.everything else "")
        # After a failure only a rollback is taken, which Django itself says best.
        if wanted != self._told and not self.needs_rollback and not str(sql).startswith(_CONTROL):
            # On a cursor of its own: the statement's may be one that reads in portions.
            with self.wrap_database_errors, self.connection.cursor() as cursor:
                cursor.execute(_TELL, wanted)
            self._told = wanted
        return execute(sql, params, many, context)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        self._told = None
        return super().get_new_connection(conn_params)

    def _commit(self) -> None:
        # After a failure that somebody caught inside, COMMIT is a rollback as well, and says nothing.
        if (
            self.connection is not None
            and self.connection.info.transaction_status == TransactionStatus.INERROR
        ):
            self._told = None
        super()._commit()  # type: ignore[misc]

    def _rollback(self) -> None:
        self._told = None
        super()._rollback()  # type: ignore[misc]  # the stubs do not know it

    def _savepoint_rollback(self, sid: str) -> None:
        self._told = None
        super()._savepoint_rollback(sid)  # type: ignore[misc]
