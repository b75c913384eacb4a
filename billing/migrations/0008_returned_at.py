from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_walls"),
    ]

    operations = [
        migrations.AddField(
            model_name="purchase",
            name="returned_at",
            field=models.DateTimeField(blank=True, editable=False, null=True, verbose_name="returned at"),
        ),
    ]
