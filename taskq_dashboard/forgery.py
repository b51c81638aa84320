"""Protection against forged requests (CSRF): a change needs a form that this user received in this browser.

Each browser has a secret in a cookie that scripts cannot read. A form contains a token, which is a hash of this secret
and the name of the user. Another site can neither read the cookie nor make the token, and the form of one user is
refused for another user. The server stores nothing, so any number of processes can serve one dashboard. Requests that a
browser marks as coming from another site are refused before this check.
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
    """Return the secret of a browser. None if its cookie is missing or not valid."""
    secret = request.cookies.get(COOKIE, "")
    return secret if _SECRET.fullmatch(secret) else None


def new_secret() -> str:
    """Return a new secret for a browser."""
    return secrets.token_urlsafe(32)


def token_for(secret: str, who: str) -> str:
    """Return the token in the forms of a user."""
    return hmac.new(secret.encode(), b"taskq form of " + who.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def is_ours(secret: str | None, who: str, token: str) -> bool:
    """Return whether a token belongs to a form that this user received in this browser."""
    if secret is None or not token.isascii():
        return False
    return hmac.compare_digest(token_for(secret, who), token)
