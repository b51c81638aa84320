"""Workflows for the admin, and the permissions to look at them and to act on them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates no table: the model is unmanaged."""

    dependencies = [("taskq_django", "0006_outbox_workflows")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="Workflow",
            fields=[
                ("id", models.CharField(max_length=256, primary_key=True, serialize=False, verbose_name="id")),
            ],
            options={
                "verbose_name": "workflow",
                "verbose_name_plural": "workflows",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
                "permissions": (("run_workflow", "Can cancel workflows and run what failed again"),),
            },
        ),
    ]
