"""The database itself refuses to change or delete an entry of the audit log."""

from django.db import migrations

from accounts.append_only import refuse_changes


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_workspaces_invitations_audit")]
    operations = [refuse_changes("accounts_auditentry", "audit entries are never changed or deleted")]
