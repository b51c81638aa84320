"""Static files. Their addresses contain a hash of the content, so browsers cache them permanently."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
NAMES = ("dashboard.css", "dashboard.js", "idiomorph.min.js", "icon.svg")
FOLDER = "static"
_CACHE = "private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file, plain and compressed."""

    plain: bytes
    zipped: bytes
    media_type: str

    def response(self, request: Request) -> Response:
        """Return the response with the file."""
        headers = {"Cache-Control": _CACHE, "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.plain, headers=headers, media_type=self.media_type)
        return Response(self.zipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=self.media_type)


class Assets:
    """The static files of the dashboard. They are read into memory once.

    Attributes:
        paths: Addresses of the files by name.
    """

    def __init__(self) -> None:
        self.paths: Mapping[str, str] = {}
        self._by_path: dict[str, Asset] = {}
        paths = {}
        for name in NAMES:
            plain = files(__package__).joinpath(FOLDER, name).read_bytes()
            stem, _, kind = name.rpartition(".")
            path = f"{FOLDER}/{stem}.{hashlib.sha256(plain).hexdigest()[:16]}.{kind}"
            self._by_path[path] = Asset(plain, gzip.compress(plain, mtime=0), TYPES[f".{kind}"])
            paths[name] = path
        self.paths = paths

    def find(self, path: str) -> Asset | None:
        """Return the file at an address."""
        return self._by_path.get(path)
