"""Create the tables of customers and photos."""

from django.core.validators import FileExtensionValidator
from django.db import migrations, models

from example_project.studio.models import original_path


class Migration(migrations.Migration):
    """Creates the first tables."""

    initial = True
    dependencies = []  # noqa: RUF012 - Django's own form
    operations = [  # noqa: RUF012 - Django's own form
        migrations.CreateModel(
            name="Customer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("email", models.EmailField(max_length=254, unique=True)),
                ("joined_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Photo",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=100)),
                (
                    "image",
                    models.ImageField(
                        upload_to=original_path,
                        validators=[FileExtensionValidator(["jpg", "jpeg", "png"])],
                    ),
                ),
                ("uploaded_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "ordering": ("-uploaded_at", "-id"),
            },
        ),
    ]
