"""Settings of the small Django project that the tests of `taskq_django` use.

Two databases in files, because threads and several aliases have to be real; the tests' own folder per process.
They need not survive a power failure, so SQLite does not wait for the disk.
"""

import tempfile
from pathlib import Path

import django

BASE_DIR = Path(__file__).parent
_DATABASES = Path(tempfile.mkdtemp(prefix="taskq-django-tests-"))

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.taskq_django.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "taskq_django",
    "tests.taskq_django.shop",
    "tests.taskq_django.depot",
    "tests.taskq_django.parcels",
]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")  # the framework, which is part of Django since 6.0
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _DATABASES / f"{alias}.sqlite3",
        "TEST": {"NAME": _DATABASES / f"test_{alias}.sqlite3"},
        "OPTIONS": {"timeout": 30, "init_command": "PRAGMA synchronous=OFF"},
    }
    for alias in ("default", "other")
}
TASKQ: dict[str, object] = {}
TASKS = {"default": {"BACKEND": "taskq_django.TaskQBackend"}}
