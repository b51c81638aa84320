from django.apps import AppConfig


class DepotConfig(AppConfig):
    name = "tests.taskq_django.depot"
    label = "depot"
