"""Ask Sentinels which server is the primary.

Every new connection asks the Sentinels one after another. Each Sentinel gets an equal share of the remaining time. A
search has no shared state, so any number of threads and event loops may search. If the named server is only a replica,
it refuses writes. Then the connection is closed, and the next connection asks the Sentinels again.

A search is a generator without I/O. It yields the options of a connection to one Sentinel, and receives the reply of
that Sentinel, or an exception. The functions `ask` and `aask` return such a reply or exception.
"""

import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import AuthenticationError

Server = tuple[str, int]
Options = dict[str, Any]


def find(sentinels: Sequence[Server], master: str, *, timeout_s: float) -> Generator[Options, Any, Server]:
    """Return the primary that the first answering Sentinel names.

    Args:
        sentinels: Hosts and ports of the Sentinels, in the order in which they are asked.
        master: Name of the primary.
        timeout_s: Seconds for all Sentinels together.

    Raises:
        redis.ConnectionError: No Sentinel named a primary.
        AuthenticationError: A Sentinel refused the user or password.
    """
    problems: list[Any] = []
    for options in _turns(sentinels, timeout_s):
        reply = yield options
        if reply and not isinstance(reply, Exception):
            return _server(reply)
        problems.append(reply or "unknown there")
    for problem in problems:
        if isinstance(problem, AuthenticationError):
            raise problem
    reasons = "; ".join(map(str, problems)) or "no time was left"
    cause = next((each for each in problems if isinstance(each, Exception)), None)
    raise redis.ConnectionError(f"no Sentinel names the primary {master!r}: {reasons}") from cause


def agree(sentinels: Sequence[Server], *, timeout_s: float) -> Generator[Options, Any, Server | None]:
    """Ask all Sentinels and return the primary that more than half of them name, or None.

    The majority matters: a Sentinel that is cut off together with an old primary still names the old one.
    """
    named: Counter[Server] = Counter()
    for options in _turns(sentinels, timeout_s):
        reply = yield options
        if reply and not isinstance(reply, Exception):
            named[_server(reply)] += 1
    return next((each for each, count in named.items() if 2 * count > len(sentinels)), None)


def ask(kind: type[Any], options: Mapping[str, Any], master: str) -> Any:
    """Ask one Sentinel for the primary on a new blocking connection. Return its reply or the exception."""
    connection = kind(**options)
    try:
        connection.connect()
        connection.send_command(*_question(master), check_health=False)
        return connection.read_response()
    except (redis.RedisError, OSError) as error:
        return error
    finally:
        connection.disconnect()


async def aask(kind: type[Any], options: Mapping[str, Any], master: str) -> Any:
    """Ask one Sentinel for the primary on a new asyncio connection. Like `ask`."""
    connection = kind(**options)
    try:
        await connection.connect()
        await connection.send_command(*_question(master), check_health=False)
        return await connection.read_response()
    except (redis.RedisError, OSError) as error:
        return error
    finally:
        await connection.disconnect(nowait=True)


def _turns(sentinels: Sequence[Server], timeout_s: float) -> Generator[Options, None, None]:
    until = time.monotonic() + timeout_s
    for index, (host, port) in enumerate(sentinels):
        share_s = (until - time.monotonic()) / (len(sentinels) - index)
        if share_s > 0:
            yield {"host": host, "port": port, "socket_timeout": share_s, "socket_connect_timeout": share_s}


def _question(master: str) -> tuple[str, ...]:
    return ("SENTINEL", "get-master-addr-by-name", master)


def _server(reply: Any) -> Server:
    return reply[0].decode(), int(reply[1])
