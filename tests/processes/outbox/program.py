"""A process that uses an outbox, and sends itself a signal at a named point: `python -m ... ACTION JSON`.

The JSON has the adapter, the database, the Redis, the place to record side effects, the point, and the signal.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from taskq_core.client.outbox import Delivery, delivery, sender
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import group, sending

ACTION, PLAN = sys.argv[1], json.loads(sys.argv[2])

POINTS = ("row written", "committed", "claimed", "sent", "row deleted", "receipt given back")


def main() -> None:
    shop = import_module(f"tests.processes.outbox.{PLAN['adapter']}").Shop(PLAN)
    sender.PATIENCE_S = 30.0  # so that each process reaches its point on a busy machine
    delivery.CLAIM_S = delivery.SEND_S = PLAN.get("claim_s", 60.0)
    if PLAN.get("is_fence_off"):
        fenced = delivery.outbox.deliver

        def unfenced(*words: Any, claim_ends_ms: int, **options: Any) -> Any:
            return fenced(*words, claim_ends_ms=1 << 52, **options)

        delivery.outbox.deliver = unfenced  # type: ignore[assignment]  # it has the same arguments
    set_point(shop, PLAN.get("point"), PLAN.get("signal", 9))
    ACTIONS[ACTION](shop)


def set_point(shop: Any, point: str | None, number: int) -> None:
    """Make this process send itself a signal when it reaches a point."""

    def after(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def wrapped(*words: Any, **options: Any) -> Any:
            result = inner(*words, **options)
            os.kill(os.getpid(), number)
            return result

        setattr(owner, name, wrapped)

    table = type(shop.table)
    match point:
        case "row written":
            after(*shop.writes_row)
        case "committed":
            outbox = type(shop.app.outbox)
            inner = outbox.write

            def write(self: Any, rows: Any, committed: Callable[[Any], None], dropped: Callable[[], None]) -> None:
                inner(self, rows, lambda table: os.kill(os.getpid(), number), dropped)

            outbox.write = write
        case "claimed":
            after(table, "claim")
        case "sent":
            after(Delivery, "_send")
        case "row deleted":
            after(table, "delete")
        case "receipt given back":
            after(Delivery, "_finish")


def define(shop: Any) -> Any:
    @shop.app.task(name="shop:ship")
    def ship(order: str) -> None:
        with Path(PLAN["effects"]).open("a") as effects:
            effects.write(order + "\n")

    return ship


def migrate(shop: Any) -> None:
    shop.migrate()


def place(shop: Any) -> None:
    """Store orders in one transaction each, with one task or with a workflow that needs several rows."""
    sending.BATCH_MAX = 5  # the workflow needs several batches
    ship = define(shop)
    for order in PLAN["orders"]:
        if members := PLAN.get("members"):
            members = group(ship.si(f"{order}.{number}") for number in range(members))
            shop.place(order, workflow=members | ship.si(order))
        else:
            shop.place(order, call=ship.s(order))


def relay(shop: Any) -> None:
    """Send all waiting rows once."""
    shop.app.runtime.delivery.deliver(shop.table)


def work(shop: Any) -> None:
    """Run a worker with a relay until the outbox and the queue are empty."""
    define(shop)
    raise SystemExit(Worker(shop.app, WorkerConfig(queues={"default": 1}, burst=True, leader_lease=0.2)).run())


ACTIONS: dict[str, Callable[[Any], None]] = {"migrate": migrate, "place": place, "relay": relay, "work": work}

if __name__ == "__main__":
    main()
