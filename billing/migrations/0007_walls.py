"""Row-level security: a workspace's credits, quotes and purchases are seen inside it only."""

from django.db import migrations

from accounts.walls import Wall


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_spenders"), ("accounts", "0006_walls")]
    operations = [
        Wall("billing_creditentry"),
        Wall("billing_debtentry"),
        Wall("billing_offer"),
        Wall("billing_billingaccount"),
        Wall("billing_purchase"),
    ]
