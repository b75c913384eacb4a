"""The ledger's triggers step aside: SQLite changes a table by making it anew, which would lose them."""

from django.db import migrations

from accounts.append_only import allow_changes


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_ledger_is_append_only")]
    operations = [allow_changes("billing_creditentry", "ledger entries are never changed or deleted")]
