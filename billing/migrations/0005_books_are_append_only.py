"""The database itself refuses to change or delete a movement of credits or of debt."""

from django.db import migrations

from accounts.append_only import refuse_changes

SENTENCE = "ledger entries are never changed or deleted"


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_purchases_prices_and_debts")]
    operations = [
        refuse_changes("billing_creditentry", SENTENCE),
        refuse_changes("billing_debtentry", SENTENCE, function_of="billing_creditentry"),
    ]
