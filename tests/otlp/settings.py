"""The Django site."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["taskq_django", "tests.otlp.depot"]
ROOT_URLCONF = "tests.otlp.urls"
MIDDLEWARE: list[str] = []
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
TASKQ = {
    "URL": os.environ["TASKQ_URL"],
    "QUEUES": {"default": 1, "grouped": 1},
    "TRACE": {"EXCEPTION_MESSAGES": False, "OPT_IN": ["settle", "receive"]},
    "SCHEDULE": {"new-year": {"task": "depot:pack", "cron": "0 3 1 1 *", "kwargs": {"secret": "x"}}},
}
