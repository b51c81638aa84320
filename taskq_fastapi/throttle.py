"""Slow down an address whose logins are refused, so that passwords and keys cannot be guessed.

Counts are kept in the memory of the process, so they work while Redis is down, and an attack costs Redis nothing.
Several processes together allow a multiple of the limit. The memory is bounded for any number of addresses.

Each count is one number: the time at which the whole limit is available again (the generic cell rate algorithm, ITU-T
I.371).
"""

import asyncio
import ipaddress
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from starlette.exceptions import HTTPException
from starlette.requests import Request

from taskq_core import ConfigurationError
from taskq_core.tasks.limits import parse_rate

audit_logger = logging.getLogger("taskq.audit")

FAILED_LOGINS = "10/m"
"""Default maximum rate of refused logins from one address."""
ADDRESSES_MAX = 10_000
"""Maximum number of addresses with a separate count. Further addresses share one count until some counts expire."""
SWEEP_S = 1.0
"""Minimum seconds between two sweeps for expired counts."""
ROUNDING_S = 1e-6
"""Seconds that a sum of times may differ from the exact value, because floats are rounded."""
LOG_EVERY_S = 60.0
"""Minimum seconds between two log lines about one address."""
_SHARED = "others"
_PROMPTING_SCHEMES = ("basic", "digest", "negotiate")
"""Schemes for which a browser prompts its user, so the first request of the browser has no credentials."""
_LET_IN = "taskq.let_in"
"""Key in the ASGI scope that marks a request whose user is authenticated."""
_ATTEMPT = "taskq.login_attempt"
"""Key in the ASGI scope of the attempt that a request has reserved."""


class TooManyError(HTTPException):
    """A request of an address with too many refused logins.

    Args:
        wait_s: Seconds until the next request is allowed.
    """

    def __init__(self, wait_s: float) -> None:
        self.seconds = max(1, math.ceil(wait_s))
        headers = {"Retry-After": str(self.seconds)}
        super().__init__(429, f"too many refused logins: try again in {self.seconds} s", headers=headers)


class OwnRefusal(HTTPException):
    """A 403 response to a forged request. It does not depend on the user, so it does not count as a refused login."""

    def __init__(self, detail: str) -> None:
        super().__init__(403, detail)


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Attempts:
    """The number of requests of one address that are being authenticated, and the requests that wait for them."""

    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def wake_next(self) -> None:
        """Let the next waiting request check whether it may run."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class LoginLimiter:
    """Counts the refused logins of each address for one dashboard or router.

    A request reserves one of the refusals that its address has left, before it is authenticated. So requests that are
    sent at the same time cannot try more passwords than the limit allows.

    Args:
        rate: The limit, such as "10/m"; None for no limit.
        clock: Returns monotonic seconds.

    Raises:
        ConfigurationError: The rate is not valid.
    """

    def __init__(self, rate: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._has_limit = rate is not None
        tokens, period_ms = (1, 0) if rate is None else _parsed(rate)
        self._period_s = period_ms / 1000
        self._each_s = self._period_s / tokens
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._attempts: WeakValueDictionary[str, _Attempts] = WeakValueDictionary()  # kept alive by their requests
        self._swept_at = -math.inf
        self._logged_at: dict[str, float] = {}

    async def admit(self, request: Request) -> None:
        """Reserve an attempt for a request, until `let_in` or `end_attempt`.

        If running requests of the same address have reserved all attempts, wait until one of them is decided. If no
        attempt is left, refuse the request, and log this at most once a minute.

        Raises:
            TooManyError: The address has to wait.
        """
        if not self._has_limit:
            return
        address = address_of(request)
        attempts = self._attempts.setdefault(self._counted_as(address), _Attempts())
        try:
            while self.wait_s(address, attempts.running):
                wait_s = self.wait_s(address)
                if wait_s:
                    self._log(address)
                    raise TooManyError(wait_s)
                turn = asyncio.get_running_loop().create_future()
                attempts.waiting.append(turn)
                await turn
        except BaseException:
            attempts.wake_next()
            raise
        attempts.running += 1
        request.scope[_ATTEMPT] = attempts

    def _log(self, address: str) -> None:
        now = self._clock()
        if now >= self._logged_at.get(address, -math.inf) + LOG_EVERY_S:
            if len(self._logged_at) >= ADDRESSES_MAX:
                self._logged_at.clear()
            self._logged_at[address] = now
            audit_logger.warning("requests from %r are answered 429: too many refused logins", address)

    def refuse(self, request: Request, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Count a request that authentication rejected with this response.

        A 401 that makes the browser prompt for missing credentials does not count, and neither does a refusal of a user
        who is authenticated.
        """
        challenge = next((text for name, text in (headers or {}).items() if name.lower() == "www-authenticate"), "")
        is_prompt = challenge.partition(" ")[0].lower() in _PROMPTING_SCHEMES
        is_question = status == 401 and is_prompt and "authorization" not in request.headers
        if status in (401, 403) and not is_let_in(request) and not is_question:
            self.count(address_of(request))

    def wait_s(self, address: str, running: int = 0) -> float:
        """Return the seconds until a request of an address is allowed, if `running` others are refused until then."""
        debt_s = max(0.0, self._full_at.get(self._counted_as(address), -math.inf) - self._clock())
        wait_s = debt_s + (running + 1) * self._each_s - self._period_s
        return wait_s if wait_s > ROUNDING_S else 0.0

    def count(self, address: str) -> None:
        """Count a refused login."""
        if not self._has_limit:
            return
        now = self._clock()
        is_full = len(self._full_at) >= ADDRESSES_MAX
        if is_full and address not in self._full_at and self._swept_at + SWEEP_S < now:
            self._swept_at = now
            self._full_at = {each: at for each, at in self._full_at.items() if at > now}
        name = self._counted_as(address)
        full_at = max(now, self._full_at.get(name, now)) + self._each_s
        self._full_at[name] = min(full_at, now + self._period_s)

    def _counted_as(self, address: str) -> str:
        is_full = len(self._full_at) >= ADDRESSES_MAX
        return _SHARED if is_full and address not in self._full_at else address


def let_in(request: Request) -> None:
    """Record that the user of a request is authenticated."""
    request.scope[_LET_IN] = True
    end_attempt(request)


def end_attempt(request: Request) -> None:
    """Release the attempt that a request has reserved. If it was refused, call `LoginLimiter.refuse` first."""
    attempts = request.scope.pop(_ATTEMPT, None)
    if attempts is not None:
        attempts.running -= 1
        attempts.wake_next()


def is_let_in(request: Request) -> bool:
    """Return whether the user of a request is authenticated."""
    return _LET_IN in request.scope


def address_of(request: Request) -> str:
    """Return the address under which a request is counted. An IPv6 client owns its /64 network."""
    client = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
        address = address.ipv4_mapped
    return str(address)


def _parsed(rate: str) -> tuple[int, int]:
    try:
        return parse_rate(rate)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("rate_limit", "failed_logins", 1)) from None
