"""Carry workflows between queues: outcomes of steps to the home of their workflow, next steps to their queue.

A transfer may be repeated, run in several workers at once, or be interrupted anywhere. An outcome counts once, because
a node ends once. A step is stored once, because its queue keeps a receipt. The record of a transfer is deleted last.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any

from taskq_core.broker.operations import dispatch as carrying
from taskq_core.broker.operations import workflows
from taskq_core.broker.operations.dispatch import PUT_S, SWEEP_MAX, DueSteps
from taskq_core.broker.operations.operation import Argument, Operation
from taskq_core.wire import Keys, QueueKeys

logger = logging.getLogger("taskq.workflow")

ABANDONED = "whoever added members to it went silent"
"""Failure of a group whose client died."""

Carrying = Generator[Operation[Any], Any, set[str]]
"""Yields operations, is sent their answers, returns names of queues that have something to carry now."""


def carry(keys: Keys, queue: QueueKeys, due: DueSteps, register: Callable[[QueueKeys], Operation[Any]]) -> Carrying:
    """Carry what stands in a queue.

    Args:
        keys: Names the other queues.
        queue: The queue.
        due: What there is to carry.
        register: Returns what notes a queue as known.
    """
    more: set[str] = set()
    more |= yield from _carry_notes(keys, queue, due)
    more |= yield from _carry_steps(keys, queue, due, register)
    for workflow_id in due.abandoned:
        closed = yield workflows.close_groups(queue, workflow_id, problem=ABANDONED, if_abandoned=True)
        if closed:
            logger.error(
                "%s: the groups of workflow %s are incomplete and fail",
                ABANDONED,
                workflow_id,
                extra={"queue": queue.name},
            )
    return more


def _carry_notes(keys: Keys, queue: QueueKeys, due: DueSteps) -> Carrying:
    more: set[str] = set()
    by_home: dict[QueueKeys | None, list[tuple[bytes, bytes]]] = defaultdict(list)
    for field, value in due.notes.items():
        _, _, key = field.decode("utf-8", "surrogateescape").partition(" ")
        by_home[keys.home_of(key)].append((field, value))
    for home, notes in by_home.items():
        if home is not None:
            ends: list[tuple[Argument, Argument, Argument]] = []
            for field, value in notes:
                node, _, key_bytes = field.partition(b" ")
                ends.append((key_bytes, node, value))
            if (yield carrying.tell_ends(home, ends)):
                more.add(home.name)
        yield carrying.forget_notes(queue, notes)
    return more


def _carry_steps(
    keys: Keys, queue: QueueKeys, due: DueSteps, register: Callable[[QueueKeys], Operation[Any]]
) -> Carrying:
    left = due.out
    if not left:
        return set()
    now_s, steps = yield carrying.fetch_steps(queue, left)
    by_queue: dict[str, list[carrying.StepToSend]] = defaultdict(list)
    for step in steps:
        by_queue[step.queue].append(step)
    for name, to_send in by_queue.items():
        target = keys.queue(name)
        yield register(target)
        if (yield carrying.put_steps(target, to_send, until_s=now_s + PUT_S)):
            yield carrying.steps_sent(queue, to_send)
    return {queue.name} if len(left) >= carrying.DISPATCH_MAX or any(each[:1] == b"r" for each in left) else set()


class Sweep:
    """Looks through the started steps of a queue for ends that no workflow was told of: the oldest, and all in turn."""

    def __init__(self) -> None:
        self._at = 0

    def look(self, queue: QueueKeys, due: DueSteps) -> Carrying:
        """Look at some."""
        more = False
        starts = {0, self._at}
        for first in sorted(starts):
            if first < due.steps:
                looked, found, has_to_carry = yield carrying.sweep_steps(queue, first=first)
                more = more or has_to_carry
                if first == self._at:
                    self._at = first + looked - found if looked >= SWEEP_MAX else 0
        if self._at >= due.steps:
            self._at = 0
        return {queue.name} if more else set()
