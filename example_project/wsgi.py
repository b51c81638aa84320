"""The Django site, for `manage.py runserver` and any WSGI server."""

import os

from django.core.wsgi import get_wsgi_application
from opentelemetry.instrumentation.django import DjangoInstrumentor

from example_project.telemetry import trace_process

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
if trace_process("studio-site"):
    DjangoInstrumentor().instrument()
application = get_wsgi_application()
