from django.apps import AppConfig


class UpkeepConfig(AppConfig):
    """Periodic work."""

    name = "example_project.upkeep"
