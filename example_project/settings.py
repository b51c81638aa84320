"""Settings of the studio. The Django site, the FastAPI app and the worker use them.

The defaults work on a laptop. Other machines set environment variables: `DJANGO_SECRET_KEY`, `DJANGO_DEBUG`,
`DJANGO_ALLOWED_HOSTS`, `STUDIO_DATA`, `STUDIO_SITE`, `STUDIO_SMTP` and `TASKQ_URL`.
"""

import os
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent
DATA_DIR = Path(os.environ.get("STUDIO_DATA", BASE_DIR))  # the database and the photos

DEBUG = os.environ.get("DJANGO_DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or ("for-development-only" * 3 if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("without DJANGO_DEBUG, the variable DJANGO_SECRET_KEY must be set")
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "taskq_django",
    "example_project.studio",
    "example_project.upkeep",
]

# --- the queue --------------------------------------------------------------------------------------------------------

TASKQ = {
    "URL": "embedded://",  # a private redis-server for development; elsewhere set TASKQ_URL=redis://...
    "QUEUES": {"critical": 6, "default": 3, "low": 1},
    "CONCURRENCY": 10,
    "DEFAULTS": {"retention": timedelta(hours=24)},  # stores results for a day, for the site and the admin
    "SCHEDULE": {  # in addition to the schedules in upkeep/tasks.py
        "cleanup:old_data": {"task": "cleanup:old_data", "cron": "0 * * * *", "kwargs": {"retention_days": 30}},
    },
}

# --- Django -----------------------------------------------------------------------------------------------------------

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        # Several processes write to the database. With these options they wait for each other instead of failing.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

BACKUP_DIR = DATA_DIR / "backups"
MEDIA_ROOT = DATA_DIR / "media"
MEDIA_URL = "media/"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # gunicorn serves static files directly from the apps, without `collectstatic`
STORAGES = {
    # A task that runs twice overwrites its file. Django's default storage would add a second file with another name.
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"allow_overwrite": True}},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# The worker sends mail to the server STUDIO_SMTP=host:port. Without the variable, it prints mail to its output.
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if 'STUDIO_SMTP' in os.environ else 'console'}.EmailBackend"
EMAIL_HOST, _, EMAIL_PORT = os.environ.get("STUDIO_SMTP", "localhost:25").rpartition(":")
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = "studio@example.com"
EDITOR_EMAIL = "editor@example.com"  # decides which photos are published
SITE_URL = os.environ.get("STUDIO_SITE", "http://127.0.0.1:8000")  # in links of mails

TIME_ZONE = "UTC"
USE_TZ = True
