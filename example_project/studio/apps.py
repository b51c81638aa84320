from django.apps import AppConfig


class StudioConfig(AppConfig):
    """Configuration of the app `studio`."""

    name = "example_project.studio"
