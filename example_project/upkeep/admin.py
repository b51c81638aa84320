from django.contrib import admin

from example_project.upkeep.models import HealthCheck


@admin.register(HealthCheck)
class HealthCheckAdmin(admin.ModelAdmin):
    """The admin of health checks."""

    list_display = ("part", "is_healthy", "problem", "took_ms", "checked_at")
    list_filter = ("part", "is_healthy")
