"""Filters of the templates of the admin's pages.

Django imports the tag modules of all installed apps, so this one is empty in a project without the admin.
"""

from django import template
from django.apps import apps

register = template.Library()
if apps.is_installed("django.contrib.admin"):
    from taskq_django.admin import formats

    for name in ("block", "moment", "number", "per_cent", "roughly", "span", "when"):
        register.filter(name, getattr(formats, name))
