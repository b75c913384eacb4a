"""The second wall: PostgreSQL itself shows a tenant's rows only inside its workspace.

`for_workspace` is the first wall. Should somebody forget it, the policies here still hide every row of another
workspace, also from the tables' owner (FORCE). A role that is a superuser or has BYPASSRLS is not held back, so the
site has to use another one (`accounts.checks`). SQLite knows nothing of this.

Each table with a workspace gets its wall in a migration: `Wall("app_table")`, and a table whose rows belong to such a
row `Wall("app_part", through=("app_table", "table_id"))`. tests/architecture holds the models against them.
"""

from __future__ import annotations

from typing import Any, Final

from django.db.migrations.operations.base import Operation

# In a sub-select each is read once a statement, not once a row.
_EVERYTHING: Final = "(SELECT current_setting('tenancy.everything', true)) = 'on'"
_WORKSPACE: Final = "workspace_id = (SELECT nullif(current_setting('tenancy.workspace', true), '')::uuid)"
_PERSON: Final = "user_id = (SELECT nullif(current_setting('tenancy.person', true), '')::bigint)"


def _unless_everything(condition: str) -> str:
    # CASE, not OR: the planner takes what it cannot look into for half of the rows. A second equation of the same
    # column, beside the query's own, it would take for a small part of them, and plan for a handful of rows.
    return f"CASE WHEN {_EVERYTHING} THEN true ELSE {condition} END"


class Wall(Operation):
    """Puts a wall around one table.

    `through` names the table and the column that lead to the workspace. With `or_own`, people also see the rows that
    are about themselves, in whichever workspace: their memberships.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, table: str, *, through: tuple[str, str] | None = None, or_own: bool = False) -> None:
        self.table = table
        self.through = through
        self.or_own = or_own

    def deconstruct(self) -> tuple[str, list[str], dict[str, Any]]:
        return type(self).__name__, [self.table], {"through": self.through, "or_own": self.or_own}

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models do not change."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        mine = self._behind() if self.through else _WORKSPACE
        seen = f"{mine} OR {_PERSON}" if self.or_own else mine
        clauses = f"USING ({_unless_everything(seen)}) WITH CHECK ({_unless_everything(mine)})"
        schema_editor.execute(f'ALTER TABLE "{self.table}" ENABLE ROW LEVEL SECURITY')
        schema_editor.execute(f'ALTER TABLE "{self.table}" FORCE ROW LEVEL SECURITY')
        schema_editor.execute(f'CREATE POLICY tenant_wall ON "{self.table}" {clauses}')

    def _behind(self) -> str:
        assert self.through is not None
        table, column = self.through
        # The other table's own wall decides what this sees of it.
        return f'EXISTS (SELECT FROM "{table}" AS owner WHERE owner.id = "{self.table}"."{column}")'

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        schema_editor.execute(f'DROP POLICY tenant_wall ON "{self.table}"')
        schema_editor.execute(f'ALTER TABLE "{self.table}" NO FORCE ROW LEVEL SECURITY')
        schema_editor.execute(f'ALTER TABLE "{self.table}" DISABLE ROW LEVEL SECURITY')

    def describe(self) -> str:
        return f"Puts a wall around {self.table}"
