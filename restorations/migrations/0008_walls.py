"""Row-level security: a workspace's files and restorations are seen inside it only."""

from django.db import migrations

from accounts.walls import Wall


class Migration(migrations.Migration):
    dependencies = [("restorations", "0007_receipts"), ("accounts", "0006_walls")]
    operations = [
        Wall("restorations_upload"),
        Wall("restorations_uploadpart", through=("restorations_upload", "upload_id")),
        Wall("restorations_video"),
        Wall("restorations_savedsettings"),
        Wall("restorations_restoration"),
        Wall("restorations_attempt", through=("restorations_restoration", "restoration_id")),
        Wall("restorations_restorationevent", through=("restorations_restoration", "restoration_id")),
    ]
