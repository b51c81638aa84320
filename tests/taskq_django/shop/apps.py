from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "tests.taskq_django.shop"
    label = "shop"
