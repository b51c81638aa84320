"""The table of periodic tasks."""

from datetime import timedelta

from django.db import migrations, models
from django.db.models.functions import Now
from django.utils import timezone


class Migration(migrations.Migration):
    """Creates it in every database that the router lets it."""

    dependencies = [("taskq_django", "0003_permissions")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="PeriodicTask",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=200, unique=True, verbose_name="name")),
                ("task", models.CharField(max_length=256, verbose_name="task")),
                ("is_remote", models.BooleanField(default=False, verbose_name="remote")),
                ("cron", models.CharField(blank=True, max_length=256, verbose_name="cron line")),
                ("interval", models.DurationField(blank=True, null=True, verbose_name="interval")),
                ("time_zone", models.CharField(blank=True, max_length=64, verbose_name="time zone")),
                ("kwargs", models.JSONField(blank=True, default=dict, verbose_name="arguments")),
                ("queue", models.CharField(blank=True, max_length=256, verbose_name="queue")),
                ("options", models.JSONField(blank=True, default=dict, verbose_name="options")),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
                ("start_at", models.DateTimeField(blank=True, null=True, verbose_name="start")),
                ("expire_at", models.DateTimeField(blank=True, null=True, verbose_name="end")),
                (
                    "catch_up",
                    models.CharField(
                        choices=[
                            ("skip", "leave them out"),
                            ("one", "enqueue the last one"),
                            ("all", "enqueue each of them"),
                        ],
                        default="one",
                        max_length=8,
                        verbose_name="missed firings",
                    ),
                ),
                (
                    "catch_up_window",
                    models.DurationField(default=timedelta(seconds=3600), verbose_name="caught up for"),
                ),
                ("description", models.TextField(blank=True, verbose_name="description")),
                ("last_run_at", models.DateTimeField(editable=False, null=True, verbose_name="last run")),
                ("next_run_at", models.DateTimeField(editable=False, null=True, verbose_name="next run")),
                (
                    "total_runs",
                    models.PositiveBigIntegerField(db_default=0, default=0, editable=False, verbose_name="runs"),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), default=timezone.now, editable=False, verbose_name="made"),
                ),
            ],
            options={
                "verbose_name": "periodic task",
                "verbose_name_plural": "periodic tasks",
                "ordering": ("name",),
                "permissions": (("run_periodictask", "Can run periodic tasks now"),),
                "default_permissions": ("add", "change", "delete", "view"),
            },
        ),
    ]
