from django.contrib import admin

from example_project.studio.models import Customer, Photo


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    """The admin of customers."""

    list_display = ("name", "email", "joined_at")
    search_fields = ("name", "email")


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    """The admin of photos."""

    list_display = ("title", "image", "uploaded_at", "published_at")
    search_fields = ("title",)
