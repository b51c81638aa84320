"""The names and paths of the routes that show one task."""

from urllib.parse import quote

from fastapi import Request
from starlette.routing import NoMatchFound


def status_route(name: str) -> str:
    """Return the name of the status route of a queue application."""
    return f"taskq_status_{name}"


def stream_route(name: str) -> str:
    """Return the name of the route of the emitted values of a queue application's tasks."""
    return f"taskq_stream_{name}"


def events_route(name: str) -> str:
    """Return the name of the events route of a queue application."""
    return f"taskq_events_{name}"


def path_of(request: Request, route: str, queue: str, task_id: str) -> str | None:
    """Return the path of a task in the named route of the app or its parent app. None if neither has the route."""
    scope = request.scope
    if "/" in queue:
        return None  # the path parameter of the route accepts no slash
    values = {"queue": quote(queue, safe=""), "task_id": quote(task_id, safe="")}
    outermost = scope.get("app_root_path", scope.get("root_path", ""))
    for root, router in ((scope.get("root_path", ""), request.app.router), (outermost, scope.get("router"))):
        try:
            if router is not None:
                return f"{root.rstrip('/')}{router.url_path_for(route, **values)}"
        except NoMatchFound:
            continue
    return None
