"""Archived tasks for a dead-letter handler: claim them, and record that they were handled."""

from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Operation, script
from taskq_core.wire import QueueKeys


class DeadLetterBatch(Struct):
    """Claimed tasks, and when the claim ends (Unix seconds as text)."""

    until_s: str
    task_ids: list[str]


def take_dead_letters(queue: QueueKeys, *, claim_s: int, limit: int) -> Operation[DeadLetterBatch]:
    """Claim archived tasks for the handler, at most 100. After `claim_s` seconds they can be claimed again."""

    def read(reply: Any) -> DeadLetterBatch:
        return DeadLetterBatch(replies.text(reply[0]), replies.names(reply[1:]))

    args = (NOW, claim_s, limit)
    return script("take_dead_letters", (queue.letters, queue.absent), args, read, repeatable=False)


def end_dead_letter(queue: QueueKeys, task_id: str, *, until_s: str, again_in_s: int | None = None) -> Operation[bool]:
    """Record that the handler of an archived task succeeded, or when the handler is to be called again.

    The answer is False if another caller has claimed the task since.
    """
    args = (NOW, task_id, until_s, "" if again_in_s is None else again_in_s)
    return script("end_dead_letter", (queue.letters, queue.absent), args, replies.boolean)
