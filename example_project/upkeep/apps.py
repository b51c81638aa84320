from django.apps import AppConfig


class UpkeepConfig(AppConfig):
    """Configuration of the app `upkeep`."""

    name = "example_project.upkeep"
