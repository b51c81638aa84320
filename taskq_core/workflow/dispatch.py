"""Move workflow data between queues: outcomes of steps to their workflow's home queue, next steps to their own queues.

A transfer may be repeated, run in several workers at once, or be interrupted anywhere. Nevertheless, an outcome counts
only once, because a node ends only once. A step is stored only once, because its queue keeps a receipt. The record of a
transfer is deleted last.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from taskq_core.broker.operations import dispatch as operations
from taskq_core.broker.operations import workflows
from taskq_core.broker.operations.dispatch import PUT_S, SWEEP_MAX, DueSteps
from taskq_core.broker.operations.operation import Argument, Operation
from taskq_core.errors import BrokerFullError
from taskq_core.wire import Keys, QueueKeys

logger = logging.getLogger("taskq.workflow")

ABANDONED = "the client stopped before it had added all members"
"""Failure text of a group whose client died before it had added all members."""

Dispatch = Generator[Operation[Any], Any, set[str]]
"""A request plan that returns the names of queues that have more to dispatch."""


def dispatch(keys: Keys, queue: QueueKeys, due: DueSteps, register: Callable[[QueueKeys], Operation[Any]]) -> Dispatch:
    """Send the outcomes that wait in a queue to their workflows, and the steps to the queues of their tasks.

    Args:
        keys: Key names of the installation.
        queue: The queue.
        due: The outcomes and steps to dispatch.
        register: Returns the operation that adds a queue to the list of known queues.
    """
    more: set[str] = yield from _dispatch_ends(keys, queue, due)
    more |= yield from _dispatch_steps(keys, queue, due, register)
    for workflow_id in due.abandoned:
        closed = yield workflows.close_groups(queue, workflow_id, problem=ABANDONED, if_abandoned=True)
        if closed:
            logger.error(
                "the open groups of workflow %s fail: %s",
                workflow_id,
                ABANDONED,
                extra={"queue": queue.name},
            )
    return more


def _dispatch_ends(keys: Keys, queue: QueueKeys, due: DueSteps) -> Dispatch:
    more: set[str] = set()
    by_home: dict[QueueKeys | None, list[tuple[bytes, bytes]]] = defaultdict(list)
    for field, value in due.ends.items():
        _, _, key = field.removeprefix(b"run ").decode("utf-8", "surrogateescape").partition(" ")
        by_home[keys.home_of(key)].append((field, value))
    for home, found in by_home.items():
        if home is not None:
            ends: list[tuple[Argument, Argument, Argument]] = []
            for field, value in found:
                if field.startswith(b"run "):
                    continue
                node, _, key_bytes = field.partition(b" ")
                if run := due.ends.get(b"run " + field):  # the traceparent of an ended run: the next steps link to it
                    ends.append((key_bytes, b"run", run))
                ends.append((key_bytes, node, value))
            if (yield operations.record_ends(home, ends)):
                more.add(home.name)
        yield operations.forget_ends(queue, found)
    return more


def _dispatch_steps(
    keys: Keys, queue: QueueKeys, due: DueSteps, register: Callable[[QueueKeys], Operation[Any]]
) -> Dispatch:
    left = due.out
    if not left:
        return set()
    now_s, steps = yield operations.fetch_steps(queue, left)
    by_queue: dict[str, list[operations.StepToSend]] = defaultdict(list)
    for step in steps:
        by_queue[step.queue].append(step)
    for name, to_send in by_queue.items():
        target = keys.queue(name)
        with suppress(BrokerFullError):  # a full Redis refuses to list the queue again, but it accepts the steps
            yield register(target)
        if (yield operations.put_steps(target, to_send, until_s=now_s + PUT_S)):
            yield operations.steps_sent(queue, to_send)
    return {queue.name} if len(left) >= operations.DISPATCH_MAX or any(each[:1] == b"r" for each in left) else set()


class Sweep:
    """Finds started steps of a queue whose end was not reported to their workflow."""

    def __init__(self) -> None:
        self._next = 0

    def check(self, queue: QueueKeys, due: DueSteps) -> Dispatch:
        """Check the oldest started steps of the queue, and the next page of the others."""
        if self._next >= due.steps:
            self._next = 0
        more = False
        for first in sorted({0, self._next}):
            looked, found, has_to_dispatch = yield operations.sweep_steps(queue, first=first)
            more = more or has_to_dispatch
            if first == self._next:
                self._next = first + looked - found if looked >= SWEEP_MAX else 0
        return {queue.name} if more else set()
