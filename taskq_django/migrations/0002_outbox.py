"""The table of tasks that wait to be sent."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    """Creates the outbox in every database that the router lets it."""

    dependencies = [("taskq_django", "0001_initial")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="OutboxTask",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("receipt", models.CharField(editable=False, max_length=32, unique=True, verbose_name="receipt")),
                ("queue", models.CharField(max_length=256, verbose_name="queue")),
                ("name", models.CharField(max_length=256, verbose_name="task")),
                ("task_id", models.CharField(max_length=256, verbose_name="id")),
                ("message", models.BinaryField(verbose_name="message")),
                ("size", models.PositiveIntegerField(verbose_name="bytes")),
                ("start_at_s", models.BigIntegerField(null=True, verbose_name="start")),
                ("start_in_ms", models.BigIntegerField(null=True, verbose_name="start after")),
                ("unique_key", models.CharField(default="", max_length=1024, verbose_name="unique lock")),
                ("unique_s", models.BigIntegerField(default=0, verbose_name="seconds of the unique lock")),
                ("group", models.CharField(default="", max_length=256, verbose_name="group")),
                ("replicas", models.PositiveSmallIntegerField(null=True, verbose_name="replicas that confirm")),
                ("fsynced", models.BooleanField(default=False, verbose_name="confirmed on disk")),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False, verbose_name="written"),
                ),
                ("claim", models.CharField(default="", editable=False, max_length=32, verbose_name="claim")),
                ("claimed_until", models.DateTimeField(editable=False, null=True, verbose_name="claimed until")),
            ],
            options={
                "verbose_name": "task in the outbox",
                "verbose_name_plural": "outbox",
                "default_permissions": ("view", "delete"),
            },
        ),
    ]
