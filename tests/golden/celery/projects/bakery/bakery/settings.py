import os
from datetime import timedelta

from celery.schedules import crontab

SECRET_KEY = "not a secret"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "orders",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", ":memory:")}}
USE_TZ = True
TIME_ZONE = "Europe/Berlin"

CELERY_BROKER_URL = os.environ.get("BROKER", "redis://localhost:6379/0")
CELERY_RESULT_BACKEND = "cache+memory://"
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_TASK_TIME_LIMIT = 5 * 60
CELERY_TASK_ROUTES = {"orders.tasks.bake*": {"queue": "ovens"}}
CELERY_BEAT_SCHEDULE = {
    "count loaves": {"task": "orders.tasks.count_loaves", "schedule": timedelta(seconds=1), "args": ("rye",)},
    "close": {"task": "orders.tasks.close_day", "schedule": crontab(hour=18, minute=30, day_of_week="mon-sat")},
}
