"""The database itself refuses to change or delete a movement of credits or of debt."""

import importlib

from django.db import migrations

append_only = importlib.import_module("billing.migrations.0002_ledger_is_append_only")

SQLITE = [
    f"""
    CREATE TRIGGER billing_debtentry_no_{verb.lower()} BEFORE {verb} ON billing_debtentry
    BEGIN SELECT RAISE(ABORT, 'ledger entries are never changed or deleted'); END
    """
    for verb in ("UPDATE", "DELETE")
]
POSTGRESQL = [
    """
    CREATE TRIGGER billing_debtentry_append_only BEFORE UPDATE OR DELETE ON billing_debtentry
    FOR EACH ROW EXECUTE FUNCTION billing_creditentry_refuse()
    """,
]
SQLITE_BACK = [f"DROP TRIGGER billing_debtentry_no_{verb}" for verb in ("update", "delete")]
POSTGRESQL_BACK = ["DROP TRIGGER billing_debtentry_append_only ON billing_debtentry"]


def forwards(apps, schema_editor):
    append_only.forwards(apps, schema_editor)
    append_only._run(schema_editor, {"sqlite": SQLITE, "postgresql": POSTGRESQL})


def backwards(apps, schema_editor):
    append_only._run(schema_editor, {"sqlite": SQLITE_BACK, "postgresql": POSTGRESQL_BACK})
    append_only.backwards(apps, schema_editor)


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_purchases_prices_and_debts")]
    operations = [migrations.RunPython(forwards, backwards)]
