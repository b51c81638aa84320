"""Add the time at which a photo was published."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds the column `published_at` to photos."""

    dependencies = [("studio", "0001_initial")]  # noqa: RUF012 - Django's own form
    operations = [  # noqa: RUF012 - Django's own form
        migrations.AddField("Photo", "published_at", models.DateTimeField(null=True, blank=True, editable=False)),
    ]
