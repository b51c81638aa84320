"""Changes come from the app's own pages or from no page at all: what guards them may be a cookie.

A browser says where a request comes from (`Sec-Fetch-Site`, `Origin`), and sends JSON to another site only after
asking, which is never answered here. Programs send neither header.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

_OTHER_SITE = "a change that a page of another site asks for is refused; trusted_origins names those that may"


def check_origin(request: Request, trusted: Sequence[str]) -> None:
    """Refuse a change that a page of another site asks for, and a body that is not JSON."""
    origin = request.headers.get("origin")
    if origin is None or origin not in trusted:
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            raise HTTPException(403, _OTHER_SITE)
        if site is None and origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, _OTHER_SITE)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if kind != "application/json" and (request.method != "DELETE" or has_body):
        raise HTTPException(415, "send it with Content-Type: application/json")
