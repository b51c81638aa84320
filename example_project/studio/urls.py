from django.urls import path

from example_project.studio import views

app_name = "studio"
urlpatterns = [
    path("", views.home, name="home"),
    path("signup/", views.signup, name="signup"),
    path("photos/", views.upload, name="upload"),
    path("photos/process/", views.process, name="process"),
    path("reports/", views.report, name="report"),
]
