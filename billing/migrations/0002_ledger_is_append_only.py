"""The database itself refuses to change or delete a movement of credits."""

from django.db import migrations

from accounts.append_only import refuse_changes


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]
    operations = [refuse_changes("billing_creditentry", "ledger entries are never changed or deleted")]
