"""Row-level security: a workspace's people, invitations and log are seen inside it only."""

from django.db import migrations

from accounts.walls import Wall


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_preferences_closing_exports")]
    operations = [
        Wall("accounts_membership", or_own=True),
        Wall("accounts_invitation"),
        Wall("accounts_auditentry"),
    ]
