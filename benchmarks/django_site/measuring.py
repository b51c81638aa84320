"""Measure what `.delay()` adds to the time of a Django request, and how long `manage.py runworker` takes to start.

Requests are made in this process. They pass through Django's handler and middleware, but not through a web server.
"""

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

Figures = dict[str, float]
ROOT = Path(__file__).parent.parent.parent
SETTINGS = "benchmarks.django_site.settings"
_WARM = 50
_START_S = 60
_SET_UP = "import django; django.setup(); print('ready', flush=True)"


def view_cost(url: str, *, count: int) -> Figures:
    """Return by how many microseconds a view is slower if it enqueues, including the wait for Redis's response.

    The figures are differences of medians. Requests with and without an enqueue take turns. One figure is for a view
    in a transaction, whose commit sends the task.
    """
    os.environ |= {"DJANGO_SETTINGS_MODULE": SETTINGS, "TASKQ_URL": url}
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
    times: dict[str, list[float]] = {"/plain": [], "/delaying": [], "/atomic/plain": [], "/atomic/delaying": []}
    for number in range(count + _WARM):
        if number == _WARM:
            gc.collect()
            for each in times.values():
                each.clear()
        for path, spent in times.items():
            started = time.perf_counter()
            _get(application, path)
            spent.append(time.perf_counter() - started)
    medians = {path: statistics.median(spent) * 1e6 for path, spent in times.items()}
    return {
        "view_us": medians["/plain"],
        "delay_us": medians["/delaying"] - medians["/plain"],
        "atomic_us": medians["/atomic/delaying"] - medians["/atomic/plain"],
    }


def _get(application: Callable[..., Iterable[bytes]], path: str) -> None:
    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    answer: Any = application(environ, lambda status, headers, trouble=None: statuses.append(status))
    body = b"".join(answer)
    answer.close()
    if statuses != ["200 OK"] or body != b"ok":
        raise SystemExit(f"{path} answered with the statuses {statuses}")


def start_up(url: str, *, times: int) -> Figures:
    """Measure the seconds from the start of a process until Django is set up, and until `runworker` takes tasks.

    The set-up is measured with and without taskq among the installed apps. The measurements take turns.
    """
    set_up, work = [sys.executable, "-c", _SET_UP], [sys.executable, "-m", "django", "runworker"]
    programs: dict[str, tuple[list[str], Mapping[str, str]]] = {
        "site_s": (set_up, {"BENCH_SITE": "plain"}),
        "set_up_s": (set_up, {}),
        "runworker_s": (work, {}),
    }
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(times):
        for name, (command, variables) in programs.items():
            found[name].append(_until_ready(command, {"TASKQ_URL": url, **variables}))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _until_ready(command: list[str], variables: Mapping[str, str]) -> float:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, **variables}
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                seconds = time.perf_counter() - started
                process.terminate()
                process.wait(_START_S)
                return seconds
    raise SystemExit(f"{command} ended before it was ready")
