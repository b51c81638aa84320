"""Translate errors of redis-py and of Redis into taskq's errors."""

import errno
import re
import ssl
from collections.abc import Iterator
from typing import Any

import redis
from redis import exceptions

from taskq_core.broker.scripts import with_places
from taskq_core.errors import (
    BrokerAuthenticationError,
    BrokerError,
    BrokerFullError,
    BrokerReplyError,
    BrokerUnavailableError,
)

CLIENT_ERRORS = (redis.RedisError, exceptions.RedisClusterException, OSError, TimeoutError)
"""Exceptions that redis-py can raise."""

_REFUSALS = (
    "READONLY",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "MISCONF",
    "UNBLOCKED",
)
# Redis 6.2 reports an error of a command in a script within a longer text.
_REFUSED_IN_SCRIPT = re.compile(rf"@user_script: ?\d+: -(?:{'|'.join(_REFUSALS)})\b")

_NOT_ALLOWED_IN_SCRIPT = (
    "ACL failure in script",
    "The user executing the script can't",  # the text before Redis 7
)


_LATE = "TASKQLATE"
_MOVED_OR_ASK = re.compile(r"(?:(MOVED|ASK) )?(\d+) (\S*):(\d+)$")


class ProtocolError(ConnectionError):
    """The server sent bytes that are not a Redis reply."""


class ClosedClientError(BrokerUnavailableError):
    """The client was closed, so no further request can succeed."""

    code = BrokerUnavailableError.code
    may_have_happened = False


class LateError(BrokerUnavailableError):
    """The server refused a request because its deadline has passed. A repeat would be refused as well."""

    code = BrokerUnavailableError.code  # users handle a LateError like its base class


class RedirectedError(BrokerReplyError):
    """A node of a cluster redirected a request to another node. Nothing was changed.

    Attributes:
        is_ask: True if the redirection applies to this request only, while the slot moves.
        slot: Slot of the keys.
        server: The other node. An empty host means the same host.
    """

    def __init__(self, message: str, is_ask: bool, slot: int, server: tuple[str, int]) -> None:
        super().__init__(message)
        self.args = (message, is_ask, slot, server)
        self.is_ask, self.slot, self.server = is_ask, slot, server

    def __str__(self) -> str:
        return f"{self.args[0]}; the server is a node of a cluster: use a URL with redis+cluster://"


def _redirected(error: BaseException, address: str) -> RedirectedError | None:
    text = str(error)
    is_redirection = isinstance(error, exceptions.AskError)  # MovedError is a subclass of AskError
    if not is_redirection and not text.startswith(("MOVED ", "ASK ")):
        return None
    found = _MOVED_OR_ASK.match(text)
    if found is None:
        return None
    word, slot, host, port = found.groups()
    is_ask = word == "ASK" or (word is None and not isinstance(error, exceptions.MovedError))
    text = f"{address} answered: {'ASK' if is_ask else 'MOVED'} {slot} {host}:{port}"
    return RedirectedError(text, is_ask, int(slot), (host.strip("[]"), int(port)))


def translate(error: BaseException, address: str) -> BrokerError:
    """Return taskq's error for an error of redis-py or of the operating system."""
    if isinstance(error, BrokerError):
        return error
    text = str(error)
    redirected = _redirected(error, address)
    if redirected is not None:
        return redirected
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return BrokerAuthenticationError(f"{address} refused the user or password: {text}")
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM command not allowed" in text:
        return BrokerFullError(f"{address} is over its memory limit (maxmemory) and accepts no new tasks")
    if (
        isinstance(
            error,
            exceptions.ReadOnlyError
            | exceptions.BusyLoadingError
            | exceptions.ClusterDownError
            | exceptions.TryAgainError
            | exceptions.MasterDownError,
        )
        or text.startswith(_REFUSALS)
        or _REFUSED_IN_SCRIPT.search(text)
    ):
        return BrokerUnavailableError.unchanged(f"{address} refused for now: {text}")
    if text.startswith(_LATE):
        return LateError.unchanged(f"{address} refused a request whose deadline by its clock has passed")
    if isinstance(error, exceptions.ResponseError):
        is_in_script = any(each in text for each in _NOT_ALLOWED_IN_SCRIPT)
        if text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")) or is_in_script:
            refused = BrokerAuthenticationError(f"{address} refused the user or password: {with_places(text)}")
            refused.may_have_happened = is_in_script
            return refused
        return BrokerReplyError(f"{address} answered: {with_places(text)}")
    unavailable = BrokerUnavailableError(f"no answer from {address}: {text or type(error).__name__}")
    unavailable.is_permanent = _is_permanent(error, address)
    return unavailable


_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""Errors of TLS connections that were closed, for example by a proxy whose Redis is not running."""


def _is_permanent(error: BaseException, address: str) -> bool:
    """Return whether the cause of a failed connection is the configuration, which time does not change."""
    for each in _causes(error):
        if isinstance(each, ssl.SSLError):
            return not isinstance(each, _CUT_OFF)
        if isinstance(each, FileNotFoundError):  # a file for TLS; the socket of a server appears when it starts
            return not address.startswith("unix:")
        is_forbidden = isinstance(each, PermissionError) and each.errno == errno.EACCES
        is_refused = isinstance(each, exceptions.ResponseError) and not str(each).startswith(_REFUSALS)
        if is_forbidden or is_refused or isinstance(each, exceptions.InvalidResponse | ProtocolError):
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it. redis-py replaces an OSError without naming it as the cause."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_unanswered(answer: object) -> bool:
    """Return whether this is the error of a lost connection, after which Redis may have carried out the operation."""
    return isinstance(answer, BrokerUnavailableError) and answer.may_have_happened


def translate_connecting(error: BaseException, address: str) -> BrokerError:
    """Return taskq's error for an error raised while connecting, when nothing was sent yet."""
    if isinstance(error, exceptions.ConnectionError) and isinstance(error.__cause__, exceptions.AuthenticationError):
        error = error.__cause__  # redis-py's asyncio connections wrap the authentication error
    translated = translate(error, address)
    if isinstance(translated, BrokerUnavailableError):
        text = str(translated).replace("no answer from", "cannot reach", 1)
        return BrokerUnavailableError.unchanged(text, is_permanent=translated.is_permanent)
    return translated


def is_late(reply: Any) -> bool:
    """Return whether the server refused a request because its deadline has passed by the server's clock."""
    return isinstance(reply, exceptions.ResponseError) and str(reply).startswith(_LATE)


def is_missing_script(reply: Any) -> bool:
    """Return whether the server lacks the script. Then it has run nothing, so the caller can send the script text."""
    return isinstance(reply, exceptions.NoScriptError) or (
        isinstance(reply, exceptions.ResponseError) and str(reply).startswith("NOSCRIPT")
    )
