"""The ledger's triggers step aside: SQLite changes a table by making it anew, which would lose them."""

import importlib

from django.db import migrations

append_only = importlib.import_module("billing.migrations.0002_ledger_is_append_only")


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_ledger_is_append_only")]
    operations = [migrations.RunPython(append_only.backwards, append_only.forwards)]
