"""The Lua code that reads the unique lock from a message returns the same value as protobuf."""

import random
from importlib.resources import files
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq_core.errors import WireFormatError
from taskq_core.wire import TaskMessage, build_message, decode_message, encode_message
from tests.model.fuzz.corpora import corpus
from tests.model.fuzz.mutation import mutate
from tests.redis_server import RedisServer

_READER = (files("taskq_core.broker") / "lua" / "_lock.lua").read_text("utf-8")
_SCRIPT = f"{_READER}\nreturn lock_of(ARGV[1])"
POOL = [file.read_bytes() for file in corpus("message")]


def check(client: Any, message: bytes) -> None:
    found = client.eval(_SCRIPT, 0, message)

    assert isinstance(found, bytes)
    assert len(found) <= len(message)
    try:
        read = decode_message(message)
    except WireFormatError:
        return  # a wrong lock has no effect: scripts release a lock only if it contains the id of the task
    if is_in_order(message, read):
        assert found == read.unique_key.encode()


def is_in_order(message: bytes, read: TaskMessage) -> bool:
    """Whether every field occurs once, as in all encoders. The script uses the first of several values."""
    return len(UnknownFieldSet(read)) == 0 and len(encode_message(read)) == len(message)


@pytest.mark.redis
def test_messages_of_the_corpus(redis_server: RedisServer) -> None:
    for message in POOL:
        check(redis_server.client, message)


@pytest.mark.redis
def test_mutations_of_the_corpus(session_redis_server: RedisServer) -> None:
    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(data=st.sampled_from(POOL), draw=st.randoms(use_true_random=False))
    def explore(data: bytes, draw: random.Random) -> None:
        check(session_redis_server.client, mutate(data, POOL, draw))

    explore()


@pytest.mark.redis
def test_random_messages(session_redis_server: RedisServer) -> None:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(
        payload=st.binary(max_size=300),
        lock=text,
        group=text,
        numbers=st.integers(-(2**31), 2**31 - 1),
        headers=st.dictionaries(text, text, max_size=3),
        unknown=st.sampled_from([b"", b"\xa0\x06\x01", b"\xa5\x06abcd", b"\xa1\x06abcdefgh", b"\xa2\x06\x02hi"]),
        is_first=st.booleans(),
    )
    def explore(
        payload: bytes,
        lock: str,
        group: str,
        numbers: int,
        headers: dict[str, str],
        unknown: bytes,
        is_first: bool,
    ) -> None:
        fields = {"unique_key": lock, "group_key": group, "retry": numbers, "deadline": numbers}
        message = encode_message(build_message(type="t", payload=payload, headers=headers, **fields))
        message = unknown + message if is_first else message + unknown

        assert session_redis_server.client.eval(_SCRIPT, 0, message) == lock.encode()

    explore()
