"""The database itself refuses to change or delete an entry of the audit log."""

from django.db import migrations

SQLITE = [
    f"""
    CREATE TRIGGER accounts_auditentry_no_{verb.lower()} BEFORE {verb} ON accounts_auditentry
    BEGIN SELECT RAISE(ABORT, 'audit entries are never changed or deleted'); END
    """
    for verb in ("UPDATE", "DELETE")
]
POSTGRESQL = [
    """
    CREATE FUNCTION accounts_auditentry_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'audit entries are never changed or deleted'; END $$
    """,
    """
    CREATE TRIGGER accounts_auditentry_append_only BEFORE UPDATE OR DELETE ON accounts_auditentry
    FOR EACH ROW EXECUTE FUNCTION accounts_auditentry_refuse()
    """,
]
SQLITE_BACK = [f"DROP TRIGGER accounts_auditentry_no_{verb}" for verb in ("update", "delete")]
POSTGRESQL_BACK = [
    "DROP TRIGGER accounts_auditentry_append_only ON accounts_auditentry",
    "DROP FUNCTION accounts_auditentry_refuse",
]


def _run(schema_editor, statements):
    for statement in statements[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def forwards(apps, schema_editor):
    _run(schema_editor, {"sqlite": SQLITE, "postgresql": POSTGRESQL})


def backwards(apps, schema_editor):
    _run(schema_editor, {"sqlite": SQLITE_BACK, "postgresql": POSTGRESQL_BACK})


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_workspaces_invitations_audit")]
    operations = [migrations.RunPython(forwards, backwards)]
