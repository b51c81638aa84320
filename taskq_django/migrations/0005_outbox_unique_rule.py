"""What a task in the outbox does about another that holds its unique lock."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds a column with a default, also in the database: writers of the release before leave it out."""

    dependencies = [("taskq_django", "0004_periodic_tasks")]  # noqa: RUF012 - Django's own form

    operations = [  # noqa: RUF012 - Django's own form
        migrations.AddField(
            model_name="outboxtask",
            name="unique_rule",
            field=models.CharField(db_default="", default="", max_length=1024, verbose_name="rule of the unique lock"),
        ),
    ]
