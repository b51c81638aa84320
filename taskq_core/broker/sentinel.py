"""Ask Sentinels which server is the primary.

They are asked anew for every connection, one after another, each for its share of the time, starting with another
one each time. Nothing is kept between two questions, so any number of threads and event loops may ask. A wrong answer
is found out by its use: a replica refuses to write, the connection is closed, and the next one asks again.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import AuthenticationError

Server = tuple[str, int]


class Search:
    """The search for one primary.

    Args:
        sentinels: Hosts and ports, in the order in which they are asked.
        master: Name of the primary.
        options: Options of the connections to the Sentinels.
        timeout_s: Seconds for all of them together.
    """

    def __init__(
        self, sentinels: Sequence[Server], master: str, options: Mapping[str, Any], *, timeout_s: float
    ) -> None:
        self._sentinels = sentinels
        self._master = master
        self._options = options
        self._until = time.monotonic() + timeout_s
        self._problems: list[Exception | str] = []

    def find(self, kind: type[Any]) -> Server:
        """Ask with blocking connections of a class and return the primary.

        Raises:
            redis.ConnectionError: No Sentinel named it.
            AuthenticationError: They refused the user or password.
        """
        for options in self._turns():
            connection = kind(**options)
            try:
                connection.connect()
                connection.send_command(*self._question(), check_health=False)
                found = self._read(connection.read_response())
                if found:
                    return found
            except (redis.RedisError, OSError) as error:
                self._problems.append(error)
            finally:
                connection.disconnect()
        raise self._nobody()

    async def afind(self, kind: type[Any]) -> Server:
        """Ask with asyncio connections of a class and return the primary. Raises as `find`."""
        for options in self._turns():
            try:
                found = await self._ask(kind, options)
                if found:
                    return found
            except (redis.RedisError, OSError) as error:
                self._problems.append(error)
        raise self._nobody()

    async def agree(self, kind: type[Any]) -> Server | None:
        """Ask all Sentinels and return the primary that more than half of them name, None if there is none such.

        One that is cut off together with an old primary may name that one for ever.
        """
        named: Counter[Server | None] = Counter()
        for options in self._turns():
            with contextlib.suppress(redis.RedisError, OSError):
                named.update([await self._ask(kind, options)])
        return next((each for each, count in named.items() if 2 * count > len(self._sentinels)), None)

    async def _ask(self, kind: type[Any], options: Mapping[str, Any]) -> Server | None:
        connection = kind(**options)
        try:
            await connection.connect()
            await connection.send_command(*self._question(), check_health=False)
            return self._read(await connection.read_response())
        finally:
            await connection.disconnect(nowait=True)

    def _turns(self) -> Iterator[dict[str, Any]]:
        for index, (host, port) in enumerate(self._sentinels):
            share_s = (self._until - time.monotonic()) / (len(self._sentinels) - index)
            if share_s > 0:
                yield {
                    **self._options,
                    "host": host,
                    "port": port,
                    "socket_timeout": share_s,
                    "socket_connect_timeout": share_s,
                }

    def _question(self) -> tuple[str, ...]:
        return ("SENTINEL", "get-master-addr-by-name", self._master)

    def _read(self, reply: Any) -> Server | None:
        if not reply:
            self._problems.append("unknown there")
            return None
        return reply[0].decode(), int(reply[1])

    def _nobody(self) -> Exception:
        for problem in self._problems:
            if isinstance(problem, AuthenticationError):
                return problem
        said = "; ".join(str(problem) for problem in self._problems) or "no time was left"
        return redis.ConnectionError(f"no Sentinel names the primary {self._master!r}: {said}")
