"""How often one address may ask: what a login refuses, what costs much, and all else.

Counted in the memory of the process: it works while Redis is away, writes nothing there, and an attack costs Redis
nothing. So several processes let through several times as much. What is kept has a bound, however many addresses ask.

Each count is one number, the moment at which nothing of it is left to be worked off: a bucket of so many tokens that
fill up evenly (the generic cell rate algorithm, ITU-T I.371).
"""

import ipaddress
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from taskq_core import ConfigurationError
from taskq_core.settings import check_whole
from taskq_core.tasks.limits import parse_rate

audit_logger = logging.getLogger("taskq.audit")

ADDRESSES_MAX = 10_000
"""Most addresses that are counted one by one; further ones share one count until some are free of theirs."""
SWEEP_S = 1.0
"""Seconds between two looks for addresses whose count is worked off; there are none while there is room."""
DEBT_PERIODS = 60
"""Most periods that somebody has to wait who was refused again and again at the same time."""
DEBT_S = 3600.0
"""Most seconds of that, unless a single period is longer."""
HOPS_MAX = 20
"""Most proxies that are looked through."""
_SHARED = "others"
_ASKED_BY_BROWSERS = ("basic", "digest", "negotiate")
"""Schemes of which a browser asks its user, so that its first request comes without."""
_VISIT = "taskq.visit"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How often one address may ask; IPv6 addresses of one /64 network count as one. None: any number of times.

    What is too much is answered 429 with `Retry-After`, before anybody is asked who it is.

    Attributes:
        refused: Requests that the login or the dependencies refuse (401, 403), as guesses of a password are. A 401
            that asks for credentials which were not sent is none. Those under way at the same time count afterwards.
        costly: Requests that read or change many tasks: searches, and actions on all that fit.
        requests: All requests.
        streams: Streams of live updates at a time, 1 or more.
        trusted_proxies: Addresses or networks of proxies whose `X-Forwarded-For` says for whom they ask, as
            `["10.0.0.0/8"]`. Without them a header counts for nothing. A server that reads it itself, as uvicorn does
            with `--forwarded-allow-ips`, needs none.
    """

    refused: str | None = "10/m"
    costly: str | None = "120/m"
    requests: str | None = "1200/m"
    streams: int | None = 50
    trusted_proxies: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("refused", "costly", "requests"):
            rate = getattr(self, name)
            if rate is not None:
                try:
                    parse_rate(rate)
                except ConfigurationError as error:
                    raise ConfigurationError(str(error).replace("rate_limit", f"rate_limits: {name}", 1)) from None
        if self.streams is not None:
            check_whole("rate_limits: streams", self.streams, least=1, most=1_000_000)
        if isinstance(self.trusted_proxies, str):
            raise ConfigurationError(
                f"rate_limits: trusted_proxies must be a list of addresses, got the text {self.trusted_proxies!r}"
            )
        object.__setattr__(self, "trusted_proxies", tuple(str(_network(each)) for each in self.trusted_proxies))


def _network(text: object) -> _Network:
    try:
        if isinstance(text, str):
            return ipaddress.ip_network(text)
    except ValueError:
        pass
    raise ConfigurationError(
        f"rate_limits: trusted_proxies must hold addresses or networks as '10.0.0.0/8', got {text!r}"
    )


class TooManyError(HTTPException):
    """Somebody asked too often.

    Args:
        what: What there was too much of.
        wait_s: When to ask again.
    """

    def __init__(self, what: str, wait_s: float) -> None:
        seconds = max(1, math.ceil(wait_s))
        super().__init__(429, f"too many {what}: try again in {seconds} s", headers={"Retry-After": str(seconds)})


class OwnRefusal(HTTPException):
    """A refusal that tells nothing of who asks: nobody's login failed."""

    def __init__(self, detail: str) -> None:
        super().__init__(403, detail)


class Buckets:
    """So many in a period for each address.

    Args:
        rate: The number and the period; None for any number.
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
        """Return how long there is nothing left for an address, 0 if there is."""
        debt_s = self._full_at.get(self._counted_as(address), -math.inf) - self._clock()
        return max(0.0, debt_s + self._each_s - self._period_s) if self._each_s else 0.0

    def spend(self, address: str) -> None:
        """Take one, whether there is one left or not."""
        if not self._each_s:
            return
        now = self._clock()
        is_full = len(self._full_at) >= ADDRESSES_MAX
        if is_full and address not in self._full_at and self._swept_at + SWEEP_S < now:
            self._swept_at = now
            self._full_at = {each: at for each, at in self._full_at.items() if at > now}
        name = self._counted_as(address)
        full_at = max(now, self._full_at.get(name, now)) + self._each_s
        # Those who share a count wait for its next token and no longer: many others have spent the rest.
        self._full_at[name] = min(full_at, now + (self._period_s if name == _SHARED else self._debt_s))

    def _counted_as(self, address: str) -> str:
        is_full = len(self._full_at) >= ADDRESSES_MAX
        return _SHARED if is_full and address not in self._full_at else address


class Visit:
    """One request, and what becomes of the counts of its address."""

    __slots__ = ("_throttle", "address", "is_costly", "is_known")

    def __init__(self, throttle: "Throttle", address: str, *, is_costly: bool) -> None:
        self._throttle = throttle
        self.address = address
        self.is_costly = is_costly
        self.is_known = False

    def let_in(self) -> None:
        """Note that it is known who asks, and take the costs of a costly request.

        Raises:
            TooManyError: There were too many of those.
        """
        self.is_known = True
        if self.is_costly:
            self.spend()

    def spend(self) -> None:
        """Take the costs of a costly request. Raises as `let_in`."""
        self._throttle.take("costly", self.address)

    def refuse(self, request: Request, status: int, headers: Mapping[str, str] | None) -> None:
        """Note that whoever decides who may ask has refused it, with this answer."""
        asked = next((text for name, text in (headers or {}).items() if name.lower() == "www-authenticate"), "")
        is_asked = asked.partition(" ")[0].lower() in _ASKED_BY_BROWSERS
        is_question = status == 401 and is_asked and "authorization" not in request.headers
        if status in (401, 403) and not self.is_known and not is_question:
            self._throttle.refused.spend(self.address)

    @property
    def has_room_for_stream(self) -> bool:
        """Whether the address may have one more stream."""
        most = self._throttle.limits.streams
        return most is None or self._throttle.streams.get(self.address, 0) < most

    def stream_begins(self) -> None:
        """Count a stream."""
        streams = self._throttle.streams
        streams[self.address] = streams.get(self.address, 0) + 1

    def stream_ends(self) -> None:
        """Count it no more."""
        streams = self._throttle.streams
        left = streams.pop(self.address, 1) - 1
        if left > 0:
            streams[self.address] = left


class Throttle:
    """Counts the requests to one dashboard or router.

    Args:
        limits: How many there may be; None for any number.
        clock: Monotonic seconds.
    """

    def __init__(self, limits: RateLimits | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or RateLimits(refused=None, costly=None, requests=None, streams=None)
        self.refused = Buckets(self.limits.refused, clock)
        self.streams: dict[str, int] = {}
        self._costly = Buckets(self.limits.costly, clock)
        self._requests = Buckets(self.limits.requests, clock)
        self._clock = clock
        self._told_at: dict[tuple[str, str], float] = {}
        self._trusted = [ipaddress.ip_network(each) for each in self.limits.trusted_proxies]

    def enter(self, request: Request, *, is_costly: bool = False) -> Visit:
        """Count a request, and return what stands for it.

        Raises:
            TooManyError: Its address asked too often.
        """
        address = self._address_of(request)
        wait_s = self.refused.wait_s(address)
        if wait_s:
            raise self._too_many("refused", address, wait_s)
        self.take("requests", address)
        visit = request.scope[_VISIT] = Visit(self, address, is_costly=is_costly)
        return visit

    def take(self, kind: str, address: str) -> None:
        """Take one request of a kind: `costly` or `requests`.

        Raises:
            TooManyError: None is left.
        """
        buckets = self._costly if kind == "costly" else self._requests
        wait_s = buckets.wait_s(address)
        if wait_s:
            raise self._too_many(kind, address, wait_s)
        buckets.spend(address)

    def _too_many(self, kind: str, address: str, wait_s: float) -> TooManyError:
        """Return the error, and note it in the log, at most once a minute for each address."""
        now = self._clock()
        if now >= self._told_at.get((kind, address), -math.inf) + 60:
            if len(self._told_at) >= ADDRESSES_MAX:
                self._told_at.clear()
            self._told_at[(kind, address)] = now
            words = {"refused": "too many that were refused", "costly": "too many costly ones", "requests": "too many"}
            audit_logger.warning("requests from %r are answered 429: %s", address, words[kind])
        return TooManyError({"refused": "refused logins", "costly": "costly requests"}.get(kind, "requests"), wait_s)

    def _address_of(self, request: Request) -> str:
        """Return for whom a request is: who sent it, or whom trusted proxies name, the nearest first."""
        client = request.client.host if request.client else "unknown"
        address = _parsed(client)
        if not self._trusted or address is None or not self._is_trusted(address):
            return _grouped(address, client)
        hops = [hop for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
        for hop in reversed(hops[-HOPS_MAX:]):
            found = _parsed(hop.strip())
            if found is None:
                break
            address = found
            if not self._is_trusted(address):
                break
        return _grouped(address, client)

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def visit_of(request: Request) -> Visit:
    """Return what stands for a request that was entered."""
    visit: Any = request.scope[_VISIT]
    assert isinstance(visit, Visit)
    return visit


def _parsed(text: str) -> _Address | None:
    """Return an address, also of `1.2.3.4:567` and `[::1]:567`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _grouped(address: _Address | None, client: str) -> str:
    """Return what an address is counted as: whoever has one IPv6 address has the /64 network around it."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return client if address is None else str(address)


def check_rate_limits(limits: object) -> None:
    """Refuse what is no `RateLimits`.

    Raises:
        ConfigurationError: It is something else.
    """
    if limits is not None and not isinstance(limits, RateLimits):
        raise ConfigurationError(f"rate_limits must be RateLimits(...) or None, got {type(limits).__name__}")
