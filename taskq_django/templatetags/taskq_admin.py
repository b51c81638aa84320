"""Filters of the templates of the admin's pages."""

from django import template

from taskq_django.admin import formats

register = template.Library()
for name in ("block", "moment", "number", "per_cent", "roughly", "span", "when"):
    register.filter(name, getattr(formats, name))
