"""WSGI application of the Django site, for a server that forks."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
