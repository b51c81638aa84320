"""The models the admin shows, for their permissions."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates no table: both models are unmanaged."""

    initial = True
    dependencies = []  # noqa: RUF012 - Django's own form
    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("name", models.CharField(max_length=256, primary_key=True, serialize=False, verbose_name="name")),
            ],
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Task",
            fields=[
                ("id", models.CharField(max_length=256, primary_key=True, serialize=False, verbose_name="id")),
            ],
            options={
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
            },
        ),
    ]
