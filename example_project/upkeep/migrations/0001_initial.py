"""Create the table of health checks."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates the first table."""

    initial = True
    dependencies = []  # noqa: RUF012 - Django's own form
    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="HealthCheck",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("part", models.CharField(max_length=20)),
                ("is_healthy", models.BooleanField()),
                ("problem", models.CharField(blank=True, max_length=200)),
                ("took_ms", models.FloatField()),
                ("checked_at", models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
            options={"ordering": ("-checked_at", "-id")},
        ),
    ]
