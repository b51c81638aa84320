"""Test the routing of requests to a cluster: the slot map, redirections, and keys that never exist."""

from importlib.resources import files

import pytest
from redis import exceptions

from taskq_core.broker.cluster import SlotMap, absent_key, slot_of
from taskq_core.broker.failures import RedirectedError, translate
from taskq_core.broker.operations import new_tasks, views
from taskq_core.broker.operations.operation import Operation
from taskq_core.wire import Keys
from taskq_core.wire.slots import key_slot

QUEUE = Keys().queue("default")
SLOT = key_slot(QUEUE.pending)
A, B = ("10.0.0.1", 1), ("10.0.0.2", 2)


class TestSlotMap:
    def test_a_new_slot_map_knows_no_slots(self) -> None:
        slots = SlotMap((A, B))

        assert not slots.is_known
        assert slots.owner(5) is None
        assert sorted(slots.sources()) == [A, B]

    def test_the_slot_map_learns_the_slots_that_a_node_reports(self) -> None:
        slots = SlotMap((A,))

        slots.learn([[0, 99, [b"10.0.0.2", 2, b"id"], [b"10.0.0.3", 3, b"id"]], [200, 16383, [b"", 1, b"id"]]], A)

        assert slots.is_known
        assert [slots.owner(slot) for slot in (0, 99, 100, 199, 200, 16383)] == [B, B, None, None, A, A]
        assert {slots.owner(None) for _ in range(4)} == {A, B}, "any primary in turn"
        assert sorted(slots.primaries) == [A, B]

    def test_a_node_without_a_reported_address_has_the_address_used_to_query_it(
        self, subtests: pytest.Subtests
    ) -> None:
        for blank in [b"", None, b"?"]:
            with subtests.test(blank=blank):
                slots = SlotMap((A,))

                slots.learn([[0, 16383, [blank, 7, b"id"]]], A)

                assert slots.owner(0) == (A[0], 7)

    def test_a_moved_slot_has_a_new_owner(self) -> None:
        slots = SlotMap((A,))
        slots.learn([[0, 16383, [b"10.0.0.1", 1, b"id"]]], A)

        slots.move(5, B)

        assert (slots.owner(4), slots.owner(5)) == (A, B)
        assert B in slots.sources()

    def test_forgetting_the_slots_keeps_the_known_nodes(self) -> None:
        slots = SlotMap((A,))
        slots.learn([[0, 16383, [b"10.0.0.2", 2, b"id"]]], A)

        slots.forget()

        assert not slots.is_known
        assert sorted(slots.sources()) == [A, B]
        assert slots.sources()[0] != slots.sources()[0], "another one first each time"


def test_a_redirection_is_read(subtests: pytest.Subtests) -> None:
    for error, is_ask, server in [
        (exceptions.MovedError("3999 127.0.0.1:6381"), False, ("127.0.0.1", 6381)),
        (exceptions.AskError("3999 127.0.0.1:6381"), True, ("127.0.0.1", 6381)),
        (exceptions.ResponseError("MOVED 3999 127.0.0.1:6381"), False, ("127.0.0.1", 6381)),
        (exceptions.ResponseError("ASK 3999 redis-1.example.org:6381"), True, ("redis-1.example.org", 6381)),
        (exceptions.ResponseError("MOVED 3999 :6381"), False, ("", 6381)),
        (exceptions.ResponseError("MOVED 3999 2001:db8::1:6381"), False, ("2001:db8::1", 6381)),
    ]:
        with subtests.test(error=error, is_ask=is_ask, server=server):
            found = translate(error, "redis://h:1/0")

            assert isinstance(found, RedirectedError)
            assert (found.is_ask, found.slot, found.server) == (is_ask, 3999, server)


def test_the_absent_key_is_in_the_slot_of_the_queue(subtests: pytest.Subtests) -> None:
    for queue in ["default", "a{b", "a b", "x" * 200]:
        with subtests.test(queue=queue):
            operation = views.count_tasks(Keys().queue(queue))

            (key,) = absent_key(operation)

            assert key == f"asynq:{{{queue}}}:absent"
            assert key_slot(key) == slot_of(operation)


def test_the_absent_key_is_in_the_slot_of_a_key_without_a_hash_tag() -> None:
    operation = Operation("any", views.count_tasks(QUEUE).script, ("asynq:queues",), (), str)

    assert absent_key(operation) == ("asynq:{asynq:queues}:absent",)
    assert key_slot(absent_key(operation)[0]) == key_slot("asynq:queues")


def test_a_plain_command_has_no_absent_key() -> None:
    assert absent_key(views.ping()) == absent_key(new_tasks.register_queue("asynq:queues", ["a"])) == ()


def test_no_script_uses_the_number_of_its_keys() -> None:
    """On a cluster each script gets an additional key."""
    scripts = files("taskq_core.broker") / "lua"

    assert [file.name for file in scripts.iterdir() if "#KEYS" in file.read_text()] == []
