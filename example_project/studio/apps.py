from django.apps import AppConfig


class StudioConfig(AppConfig):
    """The studio."""

    name = "example_project.studio"
