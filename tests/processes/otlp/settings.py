"""Settings of the Django site."""

import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["taskq_django", "tests.processes.otlp.depot"]
ROOT_URLCONF = "tests.processes.otlp.urls"
MIDDLEWARE: list[str] = []
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DEPOT_DATABASE", ":memory:")},
}
USE_TZ = True
TASKQ = {
    "ENQUEUE": os.environ.get("DEPOT_ENQUEUE", "on_commit"),
    "URL": os.environ["TASKQ_URL"],
    "QUEUES": {"default": 1, "grouped": 1},
    "LIMITS": {"full": {"MAX_PENDING": 1}},
    "TRACE": {"OPT_IN": ["settle", "receive"]},
    "LOG": {"EXCEPTION_MESSAGES": False},
    "SCHEDULE": {"new-year": {"task": "depot:pack", "cron": "0 3 1 1 *", "kwargs": {"secret": "x"}}},
}
