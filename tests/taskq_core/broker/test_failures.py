"""Test the translation of redis-py's errors and the encoding of commands."""

import pytest
from redis import exceptions

from taskq_core.broker.exchange import pack
from taskq_core.broker.failures import translate, translate_connecting
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerFullError,
    BrokerReplyError,
    BrokerUnavailableError,
)

WHERE = "redis://h:1/0"


def test_errors_of_redis_py_are_translated(subtests: pytest.Subtests) -> None:
    for error, kind, may_have_happened in [
        (exceptions.ConnectionError("gone"), BrokerUnavailableError, True),
        (exceptions.TimeoutError("slow"), BrokerUnavailableError, True),
        (TimeoutError(), BrokerUnavailableError, True),
        (OSError(104, "reset"), BrokerUnavailableError, True),
        (exceptions.InvalidResponse("noise"), BrokerUnavailableError, True),
        (exceptions.RedisClusterException("no node"), BrokerUnavailableError, True),
        (exceptions.BusyLoadingError("loading"), BrokerUnavailableError, False),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), BrokerUnavailableError, False),
        (exceptions.ClusterDownError("down"), BrokerUnavailableError, False),
        (exceptions.MasterDownError("down"), BrokerUnavailableError, False),
        *(
            (exceptions.ResponseError(f"{word} for some reason"), BrokerUnavailableError, False)
            for word in (
                "READONLY",
                "LOADING",
                "BUSY",
                "MASTERDOWN",
                "CLUSTERDOWN",
                "TRYAGAIN",
                "NOREPLICAS",
                "MISCONF",
            )
        ),
        (
            exceptions.ResponseError(
                "Error running script (call to f_1): @user_script:2: @user_script: 2: -MISCONF no"
            ),
            BrokerUnavailableError,
            False,
        ),
        (exceptions.AuthenticationError("no"), BrokerAuthenticationError, False),
        (exceptions.NoPermissionError("no"), BrokerAuthenticationError, False),
        (exceptions.ResponseError("NOPERM no"), BrokerAuthenticationError, False),
        (exceptions.ResponseError("WRONGPASS no"), BrokerAuthenticationError, False),
        (exceptions.ResponseError("ACL failure in script: User x has no permissions"), BrokerAuthenticationError, True),
        (
            exceptions.ResponseError("ERR The user executing the script can't run this command"),
            BrokerAuthenticationError,
            True,
        ),
        (exceptions.OutOfMemoryError("no"), BrokerFullError, False),
        (exceptions.ResponseError("OOM command not allowed when used memory > 'maxmemory'."), BrokerFullError, False),
        (
            exceptions.ResponseError("Error running script: @user_script:1: OOM command not allowed when used memory"),
            BrokerFullError,
            False,
        ),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), BrokerReplyError, False),
    ]:
        with subtests.test(error=error, kind=kind, may_have_happened=may_have_happened):
            found = translate(error, WHERE)

            assert type(found) is kind
            assert WHERE in str(found)
            assert found.may_have_happened is may_have_happened


def test_a_connection_error_means_that_the_request_was_not_sent() -> None:
    found = translate_connecting(exceptions.ConnectionError("refused"), WHERE)

    assert isinstance(found, BrokerUnavailableError)
    assert not found.may_have_happened
    assert str(found) == "cannot reach redis://h:1/0: refused"


def test_an_error_of_taskq_is_not_translated() -> None:
    error = BrokerFullError("full")

    assert translate(error, WHERE) is error


def test_a_command_may_contain_any_bytes() -> None:
    assert pack(("GET", "a\udcff", b"\x00", 7)) == b"*4\r\n$3\r\nGET\r\n$2\r\na\xff\r\n$1\r\n\x00\r\n$1\r\n7\r\n"
