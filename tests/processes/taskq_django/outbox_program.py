"""A Django process that uses the outbox and stops, or is gone, at a named point: `python -m ... ACTION JSON`.

The JSON says which database and Redis, where the side effects are noted, and the point with the signal to send there.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings

ACTION, PLAN = sys.argv[1], json.loads(sys.argv[2])

POINTS = ("row written", "committed", "claimed", "sent", "row deleted", "receipt given back")


def main() -> None:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "taskq_django"],
        DATABASES={"default": PLAN["database"]},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        TASKQ={
            "URL": PLAN["redis"],
            "ENQUEUE": "outbox",
            "ENQUEUE_TIMEOUT": PLAN.get("patience_s", 30),
            "AUTODISCOVER": False,
        },
    )
    django.setup()
    from taskq_core.outbox import delivery

    delivery.CLAIM_S = delivery.SEND_S = PLAN.get("claim_s", 60.0)
    if PLAN.get("is_fence_off"):
        fenced = delivery.operations.deliver

        def unfenced(*words: Any, claim_ends_ms: int, **options: Any) -> Any:
            return fenced(*words, claim_ends_ms=1 << 52, **options)

        delivery.operations.deliver = unfenced  # type: ignore[assignment]  # it takes the same arguments
    set_point(PLAN.get("point"), PLAN.get("signal", 9))
    ACTIONS[ACTION]()


def set_point(point: str | None, number: int) -> None:
    """Let this process send itself a signal as soon as it has come to a point."""
    from django.db import transaction

    from taskq_core.outbox import Delivery
    from taskq_django.outbox import DatabaseOutbox, DatabaseTable

    def after(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def wrapped(*words: Any, **options: Any) -> Any:
            result = inner(*words, **options)
            os.kill(os.getpid(), number)
            return result

        setattr(owner, name, wrapped)

    match point:
        case "row written":
            after(DatabaseTable, "write")
        case "committed":
            inner = DatabaseOutbox.keep

            def keep(self: DatabaseOutbox, rows: Any, committed: Callable[[Any], None]) -> None:
                inner(self, rows, lambda table: os.kill(os.getpid(), number))

            DatabaseOutbox.keep = keep  # type: ignore[method-assign]
            assert transaction.get_autocommit()
        case "claimed":
            after(DatabaseTable, "claim")
        case "sent":
            after(Delivery, "_send")
        case "row deleted":
            after(DatabaseTable, "delete")
        case "receipt given back":
            after(Delivery, "_finish")


def define() -> Any:
    from taskq_django import task

    @task(name="shop:ship")
    def ship(order: str) -> None:
        with Path(PLAN["effects"]).open("a") as effects:
            effects.write(order + "\n")

    return ship


def migrate() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def place() -> None:
    """Store orders and enqueue their tasks, in one transaction each: of one task, or a workflow in several rows."""
    from django.contrib.auth.models import Group
    from django.db import transaction

    from taskq_core.workflow import group, sending

    sending.BATCH_MAX = 5  # parts of 25 entries
    ship = define()
    for order in PLAN["orders"]:
        with transaction.atomic():
            Group.objects.create(name=order)
            if members := PLAN.get("members"):
                (group(ship.si(f"{order}.{number}") for number in range(members)) | ship.si(order)).delay()
            else:
                ship.delay(order)


def relay() -> None:
    """Send once what waits."""
    from taskq_django import taskq
    from taskq_django.outbox import DatabaseTable

    taskq.runtime.delivery.deliver(DatabaseTable("default"))


def work() -> None:
    """Relay and run until nothing is left."""
    from taskq_core.worker import Worker, WorkerConfig
    from taskq_django import taskq

    define()
    raise SystemExit(Worker(taskq, WorkerConfig(queues={"default": 1}, burst=True, leader_lease=0.2)).run())


ACTIONS: dict[str, Callable[[], None]] = {"migrate": migrate, "place": place, "relay": relay, "work": work}

if __name__ == "__main__":
    main()
