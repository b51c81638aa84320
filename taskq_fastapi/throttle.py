"""Rate limits by client address for the dashboard and the JSON API.

Counts are kept in the memory of the process, so they work while Redis is down, and an attack costs Redis nothing.
Several processes together allow a multiple of each limit. The memory is bounded for any number of addresses.

Each count is one number: the time at which the whole limit is available again (the generic cell rate algorithm, ITU-T
I.371).
"""

import ipaddress
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from taskq_core import ConfigurationError
from taskq_core.tasks.limits import parse_rate

audit_logger = logging.getLogger("taskq.audit")

ADDRESSES_MAX = 10_000
"""Maximum number of addresses with their own count. Further ones share one count until some are free."""
SWEEP_S = 1.0
"""Minimum seconds between two sweeps for addresses whose whole limit is available again."""
DEBT_PERIODS = 60
"""Maximum periods that an address is locked out after many requests at the same time were refused."""
DEBT_S = 3600.0
"""Maximum seconds of this, unless a single period is longer."""
_SHARED = "others"
_ASKED_BY_BROWSERS = ("basic", "digest", "negotiate")
"""Schemes for which a browser asks its user, so that its first request has no credentials."""
_VISIT = "taskq.visit"
_KINDS = {"refused": "refused logins", "costly": "costly requests", "requests": "requests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Limits for one address. IPv6 addresses of one /64 network count as one. None: no limit.

    A request over a limit is answered 429 with `Retry-After`, before the login runs. Behind a proxy, let the server
    read the address from `X-Forwarded-For`, for example with `uvicorn --forwarded-allow-ips`.

    Attributes:
        refused: Requests that the login or the dependencies refuse (401, 403), such as wrong passwords. A 401 that asks
            for missing credentials does not count.
        costly: Requests that read or change many tasks, such as searches and bulk actions.
        requests: All requests.
    """

    refused: str | None = "10/m"
    costly: str | None = "120/m"
    requests: str | None = "1200/m"

    def __post_init__(self) -> None:
        for name in _KINDS:
            rate = getattr(self, name)
            if rate is not None:
                try:
                    parse_rate(rate)
                except ConfigurationError as error:
                    raise ConfigurationError(str(error).replace("rate_limit", f"rate_limits: {name}", 1)) from None


class TooManyError(HTTPException):
    """A request over a limit.

    Args:
        what: The limited thing.
        wait_s: Seconds until the next request is allowed.
    """

    def __init__(self, what: str, wait_s: float) -> None:
        seconds = max(1, math.ceil(wait_s))
        super().__init__(429, f"too many {what}: try again in {seconds} s", headers={"Retry-After": str(seconds)})


class OwnRefusal(HTTPException):
    """A refusal that does not depend on the user, so it does not count as a failed login."""

    def __init__(self, detail: str) -> None:
        super().__init__(403, detail)


class Buckets:
    """The counts of all addresses for one limit.

    Args:
        rate: The limit; None for no limit.
        clock: Monotonic seconds.
    """

    def __init__(self, rate: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        tokens, period_ms = (0, 0) if rate is None else parse_rate(rate)
        self._period_s = period_ms / 1000
        self._each_s = 0.0 if rate is None else self._period_s / tokens
        self._debt_s = min(DEBT_PERIODS * self._period_s, max(DEBT_S, self._period_s))
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._swept_at = -math.inf

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_s(self, address: str) -> float:
        """Return the seconds until a request of an address is allowed."""
        debt_s = self._full_at.get(self._counted_as(address), -math.inf) - self._clock()
        return max(0.0, debt_s + self._each_s - self._period_s) if self._each_s else 0.0

    def spend(self, address: str) -> None:
        """Count a request, even over the limit."""
        if not self._each_s:
            return
        now = self._clock()
        is_full = len(self._full_at) >= ADDRESSES_MAX
        if is_full and address not in self._full_at and self._swept_at + SWEEP_S < now:
            self._swept_at = now
            self._full_at = {each: at for each, at in self._full_at.items() if at > now}
        name = self._counted_as(address)
        full_at = max(now, self._full_at.get(name, now)) + self._each_s
        # Addresses that share a count only wait for its next token, because the others have used the rest.
        self._full_at[name] = min(full_at, now + (self._period_s if name == _SHARED else self._debt_s))

    def _counted_as(self, address: str) -> str:
        is_full = len(self._full_at) >= ADDRESSES_MAX
        return _SHARED if is_full and address not in self._full_at else address


class Visit:
    """One request and the counts of its address."""

    __slots__ = ("_throttle", "address", "is_costly", "is_known")

    def __init__(self, throttle: "Throttle", address: str, *, is_costly: bool) -> None:
        self._throttle = throttle
        self.address = address
        self.is_costly = is_costly
        self.is_known = False

    def let_in(self) -> None:
        """Record that the user is authenticated, and count a costly request.

        Raises:
            TooManyError: There were too many costly requests.
        """
        self.is_known = True
        if self.is_costly:
            self.spend()

    def spend(self) -> None:
        """Count a costly request. Raises as `let_in`."""
        self._throttle.take("costly", self.address)

    def refuse(self, request: Request, status: int, headers: Mapping[str, str] | None) -> None:
        """Record that authentication rejected the request with this response."""
        asked = next((text for name, text in (headers or {}).items() if name.lower() == "www-authenticate"), "")
        is_asked = asked.partition(" ")[0].lower() in _ASKED_BY_BROWSERS
        is_question = status == 401 and is_asked and "authorization" not in request.headers
        if status in (401, 403) and not self.is_known and not is_question:
            self._throttle.refused.spend(self.address)


class Throttle:
    """Counts the requests to one dashboard or router.

    Args:
        limits: The limits; None for no limits.
        clock: Monotonic seconds.
    """

    def __init__(self, limits: RateLimits | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = {name: Buckets(None if limits is None else getattr(limits, name), clock) for name in _KINDS}
        self._clock = clock
        self._logged_at: dict[tuple[str, str], float] = {}

    @property
    def refused(self) -> Buckets:
        """The counts of refused requests."""
        return self._buckets["refused"]

    def enter(self, request: Request, *, is_costly: bool = False) -> Visit:
        """Count a request.

        Raises:
            TooManyError: Its address is over a limit.
        """
        address = _address_of(request)
        wait_s = self.refused.wait_s(address)
        if wait_s:
            raise self._too_many("refused", address, wait_s)
        self.take("requests", address)
        visit = request.scope[_VISIT] = Visit(self, address, is_costly=is_costly)
        return visit

    def take(self, kind: str, address: str) -> None:
        """Count one request of a kind: `costly` or `requests`.

        Raises:
            TooManyError: Its address is over the limit.
        """
        wait_s = self._buckets[kind].wait_s(address)
        if wait_s:
            raise self._too_many(kind, address, wait_s)
        self._buckets[kind].spend(address)

    def _too_many(self, kind: str, address: str, wait_s: float) -> TooManyError:
        """Return the error. Log it at most once a minute for each address."""
        now = self._clock()
        if now >= self._logged_at.get((kind, address), -math.inf) + 60:
            if len(self._logged_at) >= ADDRESSES_MAX:
                self._logged_at.clear()
            self._logged_at[kind, address] = now
            audit_logger.warning("requests from %r are answered 429: too many %s", address, _KINDS[kind])
        return TooManyError(_KINDS[kind], wait_s)


def visit_of(request: Request) -> Visit:
    """Return the visit of a request that was counted."""
    visit: Any = request.scope[_VISIT]
    assert isinstance(visit, Visit)
    return visit


def _address_of(request: Request) -> str:
    """Return the name under which the client of a request is counted. An IPv6 client owns its /64 network."""
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


def check_rate_limits(limits: object) -> None:
    """Check the argument `rate_limits`.

    Raises:
        ConfigurationError: It is not a `RateLimits`.
    """
    if limits is not None and not isinstance(limits, RateLimits):
        raise ConfigurationError(f"rate_limits must be RateLimits(...) or None, got {type(limits).__name__}")
