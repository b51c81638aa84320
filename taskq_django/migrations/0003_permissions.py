"""Workers for the admin, and the permissions to act on what stands in Redis."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates no table: these models are unmanaged."""

    dependencies = [("taskq_django", "0002_outbox")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="Worker",
            fields=[
                ("id", models.CharField(max_length=256, primary_key=True, serialize=False, verbose_name="id")),
            ],
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
            },
        ),
        migrations.AlterModelOptions(
            name="queue",
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view", "delete"),
                "permissions": (("pause_queue", "Can pause and resume queues"),),
            },
        ),
        migrations.AlterModelOptions(
            name="task",
            options={
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("add", "change", "delete", "view"),
                "permissions": (("run_task", "Can run and cancel tasks"),),
            },
        ),
    ]
