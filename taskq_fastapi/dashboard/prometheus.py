"""Ask a Prometheus for the past of queues, where one scrapes Asynq's metrics.

Its address comes from the code of whoever runs the dashboard, never from a request. It is asked by this process, with a
timeout and a bound on what is read, and redirects are not followed.
"""

import asyncio
import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from taskq_core import ConfigurationError, TaskQError
from taskq_core.settings.language import gettext, marked
from taskq_core.views import Points
from taskq_fastapi.dashboard.charts import Measure

TIMEOUT_S = 5.0
BYTES_MAX = 8 * 1024 * 1024
_RATE_STEPS = 4


class PrometheusError(TaskQError):
    """Prometheus did not answer, or said no.

    Args:
        text: What went wrong, with `%(problem)s` for the problem.
        problem: The problem, "" for none.
    """

    def __init__(self, text: str, problem: str = "") -> None:
        super().__init__(text, problem)
        self._text, self._problem = text, problem

    def __str__(self) -> str:
        return self._text % {"problem": self._problem}

    @property
    def told(self) -> str:
        """The same in the language of the moment; several people may be told of one error."""
        return gettext(self._text, problem=self._problem)


class _Staying(HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        """Go nowhere else."""
        return


class Prometheus:
    """A Prometheus.

    Args:
        url: Its address, without `/api/v1`; a name and password in it are sent as HTTP Basic.

    Raises:
        ConfigurationError: It is no address of a web server.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            shown = "what is not shown, as a password may be in it" if "@" in str(url) else repr(url)
            raise ConfigurationError(f"prometheus_url must be as http://prometheus:9090, got {shown}")
        place = parts.netloc.rpartition("@")[2]
        self._base = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
        self._headers = {"Accept": "application/json"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._opener = build_opener(_Staying)

    async def series(
        self, measure: Measure, names: Sequence[str], *, begin: datetime, end: datetime, step: timedelta
    ) -> Mapping[str, Points]:
        """Return what it knows of queues.

        Raises:
            PrometheusError: It did not answer in time, or said no.
        """
        step_s = max(15, math.ceil(step.total_seconds()))
        asked = {
            "query": measure.query.replace("$range", f"{_RATE_STEPS * step_s}s"),
            "start": f"{begin.timestamp():.3f}",
            "end": f"{end.timestamp():.3f}",
            "step": f"{step_s}s",
        }
        answer = await asyncio.to_thread(self._ask, f"{self._base}/api/v1/query_range?{urlencode(asked)}")
        return _read(answer, names, step_s)

    def _ask(self, address: str) -> Any:
        request = Request(address, headers=self._headers)  # noqa: S310 - checked above
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                body = response.read(BYTES_MAX + 1)
        except HTTPError as error:
            raise PrometheusError(marked("Prometheus answered %(problem)s"), str(error.code)) from error
        except (OSError, HTTPException, ValueError) as error:
            raise PrometheusError(marked("Prometheus does not answer: %(problem)s"), type(error).__name__) from error
        if len(body) > BYTES_MAX:
            raise PrometheusError(marked("Prometheus answered with more than is read"))
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise PrometheusError(marked("Prometheus did not answer in JSON")) from None


def _read(answer: Any, names: Sequence[str], step_s: int) -> Mapping[str, Points]:
    found: dict[str, Points] = {name: [] for name in names}
    try:
        if answer["status"] != "success":
            raise PrometheusError(marked("Prometheus refused the query"))
        for each in answer["data"]["result"]:
            name = each["metric"].get("queue")
            if name in found:
                found[name] = _points(each["values"], step_s)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise PrometheusError(marked("Prometheus answered something else than a range of figures")) from None
    return found


def _points(values: Sequence[Any], step_s: int) -> Points:
    points: list[tuple[datetime, float | None]] = []
    before: float | None = None
    for at_s, text in values:
        at, value = datetime.fromtimestamp(float(at_s), UTC), float(text)
        if before is not None and float(at_s) - before > 3 * step_s:
            points.append((at, None))
        before = float(at_s)
        points.append((at, value if math.isfinite(value) else None))
    return points
