"""A change is made only by a form of the dashboard itself, in the hands of the person it was shown to.

Each browser keeps a secret in a cookie that no script reads. A form holds what is made of that secret and the name of
who it was shown to; another site can neither read the cookie nor make the token, and a form of one person is refused
in the browser of another. Nothing has to be kept by the server, so any number of processes serve one dashboard.
Besides, a browser says where a request comes from, and what comes from elsewhere is refused before.
"""

import hashlib
import hmac
import re
import secrets

from starlette.requests import Request

COOKIE = "taskq_secret"
FIELD = "csrf_token"
"""Name of the field of a form that holds the token."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def secret_of(request: Request) -> str | None:
    """Return the secret of a browser, None if it has none, or none of ours."""
    secret = request.cookies.get(COOKIE, "")
    return secret if _SECRET.fullmatch(secret) else None


def new_secret() -> str:
    """Return a secret for a browser."""
    return secrets.token_urlsafe(32)


def token_for(secret: str, who: str) -> str:
    """Return the token of the forms that are shown to somebody."""
    return hmac.new(secret.encode(), b"taskq form of " + who.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def is_ours(secret: str | None, who: str, token: str) -> bool:
    """Return whether a form was shown to this person in this browser."""
    if secret is None or not token.isascii():
        return False
    return hmac.compare_digest(token_for(secret, who), token)
