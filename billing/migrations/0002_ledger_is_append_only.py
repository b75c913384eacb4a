"""The database itself refuses to change or delete a movement of credits."""

from django.db import migrations

SQLITE = [
    f"""
    CREATE TRIGGER billing_creditentry_no_{verb.lower()} BEFORE {verb} ON billing_creditentry
    BEGIN SELECT RAISE(ABORT, 'ledger entries are never changed or deleted'); END
    """
    for verb in ("UPDATE", "DELETE")
]
POSTGRESQL = [
    """
    CREATE FUNCTION billing_creditentry_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'ledger entries are never changed or deleted'; END $$
    """,
    """
    CREATE TRIGGER billing_creditentry_append_only BEFORE UPDATE OR DELETE ON billing_creditentry
    FOR EACH ROW EXECUTE FUNCTION billing_creditentry_refuse()
    """,
]
SQLITE_BACK = [f"DROP TRIGGER billing_creditentry_no_{verb}" for verb in ("update", "delete")]
POSTGRESQL_BACK = [
    "DROP TRIGGER billing_creditentry_append_only ON billing_creditentry",
    "DROP FUNCTION billing_creditentry_refuse",
]


def _run(schema_editor, statements):
    for statement in statements[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def forwards(apps, schema_editor):
    _run(schema_editor, {"sqlite": SQLITE, "postgresql": POSTGRESQL})


def backwards(apps, schema_editor):
    _run(schema_editor, {"sqlite": SQLITE_BACK, "postgresql": POSTGRESQL_BACK})


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]
    operations = [migrations.RunPython(forwards, backwards)]
