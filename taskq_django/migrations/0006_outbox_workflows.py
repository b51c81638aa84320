"""Rows of the outbox that are parts of workflows."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds a column with a default, also in the database: writers of the release before leave it out."""

    dependencies = [("taskq_django", "0005_outbox_unique_rule")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.AddField(
            model_name="outboxtask",
            name="is_workflow",
            field=models.BooleanField(db_default=False, default=False, verbose_name="part of a workflow"),
        ),
    ]
