"""The permission to quiet, resume, scale and stop workers."""

from django.db import migrations


class Migration(migrations.Migration):
    """Changes no table."""

    dependencies = [("taskq_django", "0007_workflows")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.AlterModelOptions(
            name="worker",
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
                "permissions": (("control_worker", "Can quiet, resume, scale and stop workers"),),
            },
        ),
    ]
