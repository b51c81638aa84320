"""Addresses of all pages, for tests that visit every page. A test fails if a page has no address here."""

from collections.abc import Mapping, Sequence

from taskq_core.wire import TaskState
from tests.browser.scene import Scene


def addresses(scene: Scene) -> Mapping[str, Sequence[str]]:
    """Return the addresses of each page, by its path ("" for the home page), with ids of the sample data."""
    return {
        "": ["./", "./?sort=-size&days=30"],
        "queue": [
            *("queue?name=mail", "queue?name=reports&days=90", "queue?name=mail&state=retry&rows=10"),
            *(f"queue?name=default&state={state}" for state in TaskState),
        ],
        "tasks": ["tasks", "tasks?error=timeout&state=archived", "tasks?text=nothing-has-it"],
        "failed": ["failed", "failed?state=retry"],
        "task": [f"task?queue=mail&id={scene.failing.id}"],
        "task-edit": [f"task-edit?queue=mail&id={scene.failing.id}"],
        "enqueue": ["enqueue", "enqueue?task=mail:receipt"],
        "workflows": ["workflows?queue=default", "workflows?queue=mail", "workflows?queue=default&page=9"],
        "workflow": [f"workflow?queue=default&id={scene.workflow.id}"],
        "workflow-step": [
            f"workflow-step?queue=default&id={scene.workflow.id}&step={step}" for step in ("pictures", "charge")
        ],
        "workers": ["workers", "workers?sort=-utilisation"],
        "schedules": ["schedules", "schedules?sort=-next"],
        "schedule": ["schedule?id=nightly"],
        "metrics": ["metrics", "metrics?duration=8d&queue=mail", "metrics?duration=30d&end=2020-01-01T00:00"],
        "types": ["types", "types?queue=mail"],
        "redis": ["redis"],
        "settings": ["settings"],
    }


def questions(scene: Scene) -> Sequence[str]:
    """Return the addresses of confirmation pages."""
    failing = f"retry/mail/{scene.failing.id}"
    return [
        "queue-delete?queue=mail",
        *("schedule-run?id=nightly", "schedule-add", "schedule-remove?id=nightly"),
        *("worker-scale?worker=none", "worker-stop?worker=none"),
        *(f"workflow-{action}?queue=default&id={scene.workflow.id}" for action in ("cancel", "retry")),
        *(f"tasks-act?do={action}&task={failing}" for action in ("run", "retry", "move", "delete")),
        "tasks-act-all?do=move&state=archived",
        *(f"task-signal?do={do}&queue=mail&id={scene.failing.id}&name=review" for do in ("approve", "send_signal")),
    ]


ODD = ("nowhere", "queue?name=none", "queue?name=mail&state=none")
"""Addresses of missing things and of invalid requests."""
