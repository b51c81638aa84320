import os
from datetime import timedelta

from celery.schedules import crontab

SECRET_KEY = "golden"
INSTALLED_APPS = ["taskq_django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True

# Celery
CELERY_BROKER_URL = os.environ.get("SHOP_REDIS", "redis://localhost:6379/1")  # the same Redis
CELERY_RESULT_BACKEND = CELERY_BROKER_URL
CELERY_RESULT_EXPIRES = timedelta(hours=1)
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_WORKER_CONCURRENCY = 4
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_ROUTES = {"shop.tasks.build_report": {"queue": "reports"}}
# TODO taskq: beat entry 'thirteenth' was left out: the crontab limits the day of the month and the day of the week: Celery fires when both match, taskq when either does
CELERY_BEAT_SCHEDULE = {
    "tidy": {"task": "shop.tasks.tidy", "schedule": crontab(minute="*/15", hour="8-18", day_of_week="mon-fri")},
    "report": {
        "task": "shop.tasks.build_report",
        "schedule": crontab(minute=0, hour=3),
        "args": ("daily",),
        "kwargs": {"year": 2033},
        "options": {"queue": "reports", "expires": 3600},
    },
    "ping": {"task": "ping", "schedule": timedelta(seconds=30)},
    "thirteenth": {"task": "shop.tasks.tidy", "schedule": crontab(day_of_month=13, day_of_week="fri")},
}

TASKQ = {
    "URL": os.environ.get("SHOP_REDIS", "redis://localhost:6379/1"),
    "TIME_ZONE": "Europe/Berlin",
    "CONCURRENCY": 4,
    "QUEUES": ["default", "reports"],
    "DEFAULTS": {"retention": 3600, "queue": "default"},
    "SCHEDULE": {
        "tidy": {"task": "shop.tasks.tidy", "cron": "*/15 8-18 * * mon-fri"},
        "report": {"task": "shop.tasks.build_report", "cron": "0 3 * * *", "kwargs": {"kind": "daily", "year": 2033}, "queue": "reports", "expires": 3600},
        "ping": {"task": "ping", "cron": "@every 30s"},
    },
}

STATIC_URL = "/static/"
