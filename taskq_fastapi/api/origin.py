"""Refuse changes that pages of other sites send (CSRF), because the app may authenticate users by a cookie.

A browser sends the origin of a request in `Sec-Fetch-Site` and `Origin`. It sends JSON to another site only after a
preflight request, which this API never allows. Programs send neither header.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import Request

from taskq_core import ConfigurationError
from taskq_fastapi.throttle import OwnRefusal

_OTHER_SITE = "this change is refused, because a page of another site sent it; add trusted sites to trusted_origins"


def check_trusted(origins: Sequence[str]) -> None:
    """Check the argument `trusted_origins`.

    Raises:
        ConfigurationError: It is a string, or an item is not an origin.
    """
    if isinstance(origins, str):
        raise ConfigurationError(f"trusted_origins must be a list of origins, got the string {origins!r}")
    for origin in origins:
        parts = urlsplit(origin)
        if f"{parts.scheme}://{parts.netloc}" != origin or not parts.netloc:
            raise ConfigurationError(f"trusted_origins must hold origins such as https://a.example, got {origin!r}")


def check_origin(request: Request, trusted: Sequence[str]) -> None:
    """Refuse a change that a page of another site sent, and a body that is not JSON."""
    if is_from_elsewhere(request, trusted):
        raise OwnRefusal(_OTHER_SITE)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if kind != "application/json" and (request.method != "DELETE" or has_body):
        raise HTTPException(415, "send it with Content-Type: application/json")


def is_from_elsewhere(request: Request, trusted: Sequence[str]) -> bool:
    """Return whether a page of another site sent a request, according to the headers of the browser.

    Args:
        request: The request.
        trusted: Other origins whose pages may send requests.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin is not None and origin in trusted:
        return False
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and _host(origin) != request.headers.get("host", "").lower()


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
