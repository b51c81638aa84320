from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.static import serve

urlpatterns = [
    path("admin/", admin.site.urls),
    path("approvals/", include("taskq_django.approvals")),
    path("", include("example_project.studio.urls")),
    # Also without DEBUG, so that the example needs no further server. In your project, let the web server or an object
    # storage send the files of users.
    path("media/<path:path>", serve, {"document_root": settings.MEDIA_ROOT}),
]
