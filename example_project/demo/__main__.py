"""Run the demo: `python -m example_project.demo`.

On a terminal, all processes then keep running until Ctrl-C. The exit status is 0 if everything worked, otherwise 1.
"""

import argparse
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from example_project.demo.checks import check_enqueued, check_mail, check_results, trace_of
from example_project.demo.errors import DemoError
from example_project.demo.mail import MailServer
from example_project.demo.otlp import Receiver, Traces
from example_project.demo.processes import Processes, clean_environment
from example_project.demo.visits import Visit, approve, make_visits, read_stream
from example_project.demo.waterfall import waterfall
from taskq_core import ResultTimeoutError, TaskQ, TaskQError
from taskq_core.broker.embedded import open_embedded

MANAGE = "example_project/manage.py"
START_TIMEOUT_S = 60.0
TASK_TIMEOUT_S = 60.0
ADMIN = "admin"


def main() -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m example_project.demo", description="Run the demo.")
    parser.add_argument(
        "--trace-svg", type=Path, metavar="FILE", help="draw the trace of the last photo into this file, and exit"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        with tempfile.TemporaryDirectory(prefix="studio-", ignore_cleanup_errors=True) as folder:
            stays = sys.stdout.isatty() and options.trace_svg is None
            run(Path(folder), stays=stays, trace_svg=options.trace_svg)
    except (DemoError, TaskQError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(folder: Path, *, stays: bool, trace_svg: Path | None = None) -> None:
    """Start all processes, visit the sites, and check and print the results.

    Args:
        folder: Folder for the data of Redis, the database and the photos.
        stays: True to keep all processes running until Ctrl-C.
        trace_svg: File for a drawing of a request's trace, None for no drawing.

    Raises:
        DemoError: A check failed, or a process ended.
    """
    password = secrets.token_urlsafe(9)
    with redis_server(folder / "redis") as url, Receiver() as receiver, MailServer() as mail:
        environment = clean_environment() | {
            "TASKQ_URL": url,
            "STUDIO_DATA": str(folder),
            "STUDIO_SMTP": mail.address,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "DJANGO_SUPERUSER_PASSWORD": password,
        }
        with Processes(environment) as processes:
            site_url, api_url = start(processes)
            try:
                visits = make_visits(site_url, api_url)
                approve(site_url, mail.messages)
            except (DemoError, httpx.HTTPError) as error:
                raise DemoError(f"{error}\n{processes.tails()}") from error
            check_enqueued(visits)
            results = wait_for_results(TaskQ(url), visits, processes)
            check_mail(mail.messages)
            check_results(visits, results, folder / "media")
            for visit in visits:
                show(visit, results, receiver.traces)
            published = next(task for visit in visits for task in visit.tasks if task.name == "photo:publish")
            print(f"\nThe stream of {published.name}: {', '.join(read_stream(api_url, published))}")
            count = sum(len(visit.tasks) for visit in visits)
            print(f"\nAll {count} tasks of {len(visits)} requests are done, each in the trace of its request.")
            if trace_svg is not None:
                drawn = next(visit for visit in reversed(visits) if visit.path.startswith("/photos/"))
                spans = list(receiver.traces.tree(trace_of(drawn, receiver.traces)))
                trace_svg.write_text(waterfall(str(drawn), spans), encoding="utf-8")
            if stays:
                stay(processes, site_url, api_url, password)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run the private redis-server during the block, and yield its URL. At the end, wait until it has stopped."""
    say("Redis", "a private redis-server on a unix socket")
    server = open_embedded(folder)
    try:
        yield f"embedded://{folder}"
    finally:
        server.close()
        deadline = time.monotonic() + 10
        while _answers(server.socket_path) and time.monotonic() < deadline:
            time.sleep(0.02)  # the server stops once its last client has disconnected


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def start(processes: Processes) -> tuple[str, str]:
    """Prepare the database, start the Django site, the FastAPI app and the worker, and return the sites' URLs."""
    processes.run("manage.py migrate", MANAGE, "migrate", "--verbosity", "0")
    site = processes.start("the Django site", MANAGE, "runserver", "--noreload", "127.0.0.1:0")
    where = ("--host", "127.0.0.1", "--port", "0")
    api = processes.start("the FastAPI app", "-m", "uvicorn", "example_project.api:app", *where)
    processes.start("the worker", MANAGE, "runworker")
    site_url = site.wait_for(r"server at (http://127\.0\.0\.1:\d+)", START_TIMEOUT_S)
    api_url = api.wait_for(r"running on (http://127\.0\.0\.1:\d+)", START_TIMEOUT_S)
    say("Django site", site_url)
    say("FastAPI app", api_url)
    say("Worker", "python manage.py runworker")
    return site_url, api_url


def say(what: str, where: str) -> None:
    """Print a line about a process."""
    print(f"{what:<12} {where}", flush=True)


def wait_for_results(taskq: TaskQ, visits: Sequence[Visit], processes: Processes) -> dict[str, Any]:
    """Wait until all tasks are done and return their results by id."""
    deadline = time.monotonic() + TASK_TIMEOUT_S
    results = {}
    try:
        for task in (task for visit in visits for task in visit.tasks):
            handle = taskq.get(task.id, queue=task.queue)
            while task.id not in results:
                processes.check()
                try:
                    results[task.id] = handle.result(timeout=1)
                except ResultTimeoutError:
                    if time.monotonic() > deadline:
                        raise DemoError(
                            f"{task.name} {task.id} is {handle.refresh().state}, expected it to be done after "
                            f"{TASK_TIMEOUT_S:.0f} s\n{processes.tails()}"
                        ) from None
    except TaskQError as error:
        raise DemoError(f"{error}\n{processes.tails()}") from error
    finally:
        taskq.close()
    return results


def show(visit: Visit, results: dict[str, Any], traces: Traces) -> None:
    """Print a request, its tasks with their results, and its trace as a tree."""
    trace_id = trace_of(visit, traces)
    print(f"\n{visit} -> {visit.status}")
    for task in visit.tasks:
        print(f"  task {task.name} {task.id} in queue {task.queue}: completed, result {results[task.id]!r}")
    print(f"  trace {trace_id}")
    for depth, span in traces.tree(trace_id):
        name = f"{'  ' * depth}{span.name}"
        print(
            f"    {name:<36} {span.service:<14} {span.kind:<9} {span.duration_ms:8.1f} ms{' FAILED' * span.has_failed}"
        )


def stay(processes: Processes, site_url: str, api_url: str, password: str) -> None:
    """Keep all processes running until Ctrl-C, or until one of them ends."""
    who = ("--username", ADMIN, "--email", "admin@example.com")
    processes.run("manage.py createsuperuser", MANAGE, "createsuperuser", "--noinput", *who)
    print("\nAll processes keep running until Ctrl-C.")
    say("Django site", f"{site_url}/")
    say("Admin", f"{site_url}/admin/ (user {ADMIN}, password {password})")
    say("FastAPI app", f"{api_url}/docs")
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        processes.wait_for_an_end()
    except KeyboardInterrupt:
        print("\nStopping.")
    except DemoError:
        # After Ctrl-C the other processes end too. Python drops a KeyboardInterrupt that is raised inside some
        # callbacks.
        if not received:
            raise
        print("\nStopping.")
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
