"""The FastAPI app beside the Django site: the same database, the same tasks.

Start it with `uvicorn example_project.api:app`.
"""

import os

import django
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from example_project.telemetry import trace_process
from taskq_django import taskq
from taskq_fastapi import task_router, taskq_lifespan


def create_app() -> FastAPI:
    """Set up Django, whose models and tasks the routes use, and return the app."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    django.setup()
    from example_project.studio.api import router

    app = FastAPI(title="Photo studio", lifespan=taskq_lifespan(taskq))
    app.include_router(router)
    # The example has no users, so its task routes are open. In your app, restrict them with
    # `dependencies=[Depends(...)]`.
    app.include_router(task_router(allow_anonymous=True), prefix="/tasks")
    if trace_process("studio-api"):
        FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
    return app


app = create_app()
