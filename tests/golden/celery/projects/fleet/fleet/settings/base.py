import os

SECRET_KEY = "not a secret"
INSTALLED_APPS = ("django.contrib.contenttypes", "trucks", "drivers")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", ":memory:")}}
USE_TZ = True
TIME_ZONE = "America/New_York"

CELERY_BROKER_URL = os.getenv("BROKER")
CELERY_RESULT_BACKEND = "cache+memory://"
CELERY_TASK_SOFT_TIME_LIMIT = 120
CELERY_WORKER_CONCURRENCY = 4
