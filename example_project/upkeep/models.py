from django.db import models


class HealthCheck(models.Model):
    """The result of one health check of one part of the system."""

    part = models.CharField(max_length=20)
    is_healthy = models.BooleanField()
    problem = models.CharField(max_length=200, blank=True)
    took_ms = models.FloatField()
    checked_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:  # noqa: D106 - Django's own form
        ordering = ("-checked_at", "-id")

    def __str__(self) -> str:
        return f"{self.part}: {'healthy' if self.is_healthy else self.problem}"
