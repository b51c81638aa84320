"""Task ids: random UUIDs of version 4, never handed out twice, not by a forked child either."""

import threading
import uuid

from taskq_core.client.preparer import new_task_id


def test_ids_are_uuids_of_version_4() -> None:
    for _ in range(1000):
        text = new_task_id()
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_threads_never_get_the_same_id() -> None:
    found: list[list[str]] = []

    def draw() -> None:
        found.append([new_task_id() for _ in range(2000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({each for part in found for each in part}) == 8000


def test_every_bit_that_is_free_varies() -> None:
    """A wrong slice of the random digits would leave a bit fixed."""
    numbers = [uuid.UUID(new_task_id()).int for _ in range(500)]
    ones = zeros = 0
    for number in numbers:
        ones |= number
        zeros |= ~number

    assert (ones & zeros & (2**128 - 1)).bit_count() == 122
