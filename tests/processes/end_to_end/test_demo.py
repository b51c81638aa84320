"""Test the demo as users run it: as a process, without other services."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree

import httpx
import pytest

TIMEOUT_S = 240
pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]

ROOT = Path(__file__).resolve().parents[3]
IMAGE_SPANS = {
    "image:resize": ["image.open", "image.resize", "image.store"],
    "image:watermark": ["image.open", "image.watermark", "image.store"],
    "image:compress": ["image.open", "image.store"],
}


@contextmanager
def demo(*words: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the demo, and kill its remaining processes afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "example_project.demo", *map(str, words)],
        cwd=ROOT,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_demo(*words: object, **environment: str) -> tuple[int, str, str]:
    with demo(*words, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
        with pytest.raises(ProcessLookupError):  # all its processes have ended
            os.killpg(process.pid, 0)
    return process.returncode, output, errors


def trees(output: str) -> dict[str, list[tuple[int, str, str]]]:
    """Return depth, name and service of the spans of each request's trace."""
    found: dict[str, list[tuple[int, str, str]]] = {}
    for block in re.split(r"\n(?=POST )", output)[1:]:
        request, _, rest = block.partition(" -> ")
        lines = re.findall(r"^    ( *)(.+?) {2,}(studio-\w+) +\w+ +[\d.]+ ms$", rest, re.MULTILINE)
        tree = [(len(indent) // 2, name, service) for indent, name, service in lines]
        found.setdefault(request, []).extend(tree)
    return found


def one_task(
    request: str, service: str, queue: str, *own: str, in_transaction: bool = False
) -> list[tuple[int, str, str]]:
    """Return the expected spans of a request that enqueued one task. A task of a transaction is sent at its commit."""
    return [
        (0, request, service),
        (1, f"{'create' if in_transaction else 'send'} {queue}", service),
        (2, f"process {queue}", "studio-worker"),
        *((3, name, "studio-worker") for name in own),
        *([(1, f"send {queue}", service)] if in_transaction else []),
    ]


def test_the_demo_shows_one_trace_for_every_request(tmp_path: Path) -> None:
    """After real requests to both sites it exits with 0, and prints the spans of each request and its tasks."""
    status, output, errors = run_demo("--trace-svg", tmp_path / "trace.svg")

    assert (status, errors) == (0, "")
    assert output.endswith("\nAll 14 tasks of 9 requests are done, each in the trace of its request.\n")
    shown = trees(output)
    resize = IMAGE_SPANS["image:resize"]
    site, api = "studio-site", "studio-api"
    batch = shown.pop("POST /photos/process/ on the Django site")
    publish = shown.pop("POST /photos/2/publish on the FastAPI app")
    assert shown == {
        "POST /signup/ on the Django site": one_task(
            "POST signup/", site, "critical", "smtp.send", in_transaction=True
        ),
        "POST /photos/ on the Django site": one_task("POST photos/", site, "default", *resize, in_transaction=True) * 2,
        "POST /reports/ on the Django site": one_task("POST reports/", site, "default", "report.query"),
        "POST /signup on the FastAPI app": one_task("POST /signup", api, "critical", "smtp.send"),
        "POST /photos/2/resize on the FastAPI app": one_task("POST /photos/{photo_id}/resize", api, "default", *resize),
        "POST /reports on the FastAPI app": one_task("POST /reports", api, "default", "report.query"),
    }
    assert batch[0] == (0, "POST photos/process/", site)
    created = ["create default"] * 4 + ["create low"] * 2
    assert sorted(name for depth, name, _ in batch if depth == 1) == [*created, "send default", "send low"]
    parents = {name for (_, name, _), (depth, *_) in pairwise(batch) if depth == 2}
    assert parents == set(created)
    assert sorted(name for depth, name, _ in batch if depth == 2) == ["process default"] * 4 + ["process low"] * 2
    own = [name for spans in IMAGE_SPANS.values() for name in spans] * 2
    assert sorted(name for depth, name, _ in batch if depth == 3) == sorted(own)
    runs = [(depth, name) for depth, name, _ in publish if depth == 2 or name.startswith("step ")]
    assert runs == [
        (2, "process default"),
        (3, "step ask"),
        (2, "process default"),
        (2, "process default"),
        (3, "step publish"),
    ]
    assert sorted(name for depth, name, _ in publish if depth == 5) == sorted(resize * 2)
    assert "\nThe stream of photo:publish: waiting for the editor, approved\n" in output
    drawn = ElementTree.parse(tmp_path / "trace.svg").iter("{http://www.w3.org/2000/svg}text")
    names = [name for _, name, _ in shown["POST /photos/2/resize on the FastAPI app"]]
    assert [each.text for each in drawn if each.text in names] == names


STRIPPED = """
import taskq_core.worker.starts as starts

decode = starts.decode_message

def decode_without_trace(data):
    message = decode(data)
    message.headers.pop("traceparent", None)
    return message

starts.decode_message = decode_without_trace
"""
"""A module that removes `traceparent` from every message that a worker takes."""


def test_the_demo_fails_if_the_trace_is_lost(tmp_path: Path) -> None:
    """Without `traceparent` in the headers all tasks run, and the demo reports which trace is broken."""
    (tmp_path / "sitecustomize.py").write_text(STRIPPED)

    status, output, errors = run_demo(PYTHONPATH=str(tmp_path))

    assert status == 1
    assert "are done, each in the trace of its request" not in output
    assert re.search(
        r"The demo failed: the trace of POST /signup/ on the Django site, task email:deliver \S+, is incomplete: "
        r".* has not arrived\n",
        errors,
    ), errors


def test_the_demo_stays_up_on_a_terminal() -> None:
    """It prints the addresses of its sites, which work until Ctrl-C ends it and all its processes."""
    with terminal_demo() as (process, screen, text):
        admin, user, password = re.findall(r"Admin +(\S+) \(user (\S+), password (\S+)\)", text)[0]
        site, api = re.findall(r"^(?:Django site|FastAPI app) +(http://\S+?)/?$", text, re.MULTILINE)[:2]
        task_id = re.findall(r"task email:deliver (\S+) in queue critical", text)[0]

        shown = admin_tasks(admin, user, password)
        refused = [*refused_forms(site), *refused_calls(api)]
        os.killpg(process.pid, signal.SIGINT)  # like Ctrl-C in a terminal
        with suppress(OSError):  # the terminal is closed when the demo ends
            for line in screen:
                text += line
        status = process.wait(TIMEOUT_S)

    assert task_id in shown
    assert refused == REFUSALS
    assert status == 0, text[-3000:]
    for url in (site, api):
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


@contextmanager
def terminal_demo() -> Iterator[tuple[subprocess.Popen[str], TextIO, str]]:
    """Run the demo on a terminal. Yield its process, its terminal and the lines that it printed at its start."""
    master, slave = pty.openpty()
    with (
        os.fdopen(master, errors="replace") as screen,
        demo(stdin=slave, stdout=slave, stderr=slave) as process,
    ):
        os.close(slave)
        lines: list[str] = []
        while not (lines and re.match(r"FastAPI app .*/docs$", lines[-1])):
            lines.append(screen.readline().rstrip())  # raises an error if the demo ends, because the terminal is closed
        yield process, screen, "\n".join(lines)


def admin_tasks(admin: str, user: str, password: str) -> str:
    """Return the admin's page with the completed tasks of the queue `critical`."""
    with httpx.Client(timeout=30, follow_redirects=True) as web:
        web.get(f"{admin}login/")
        form = {"username": user, "password": password, "csrfmiddlewaretoken": web.cookies["csrftoken"]}
        assert web.post(f"{admin}login/", data={**form, "next": "/admin/"}).status_code == 200
        return web.get(f"{admin}taskq_django/task/", params={"queue": "critical", "state": "completed"}).text


REFUSALS = [
    (403, "CSRF verification failed"),
    (422, "Enter a valid email address."),
    (422, "Customer with this Email already exists."),
    (422, "Upload a valid image."),
    (422, "This field is required."),
    (405, ""),
    (409, "this address has signed up already"),
    (422, "Enter a valid email address."),
    (404, "no such photo"),
    (422, "Input should be greater than or equal to 16"),
]


def refused_forms(site: str) -> Iterator[tuple[int, str]]:
    """Yield the Django site's responses to bad input: the status, and the expected words if they are present."""
    expected = iter(REFUSALS)
    with httpx.Client(base_url=site, timeout=30) as web:
        web.get("/")
        token = {"csrfmiddlewaretoken": web.cookies["csrftoken"]}
        no_image = {"image": ("hills.jpg", b"no image")}
        for answer in (
            web.post("/signup/", data={"name": "Eve", "email": "eve@example.com"}),
            web.post("/signup/", data={"name": "Eve", "email": "nowhere", **token}),
            web.post("/signup/", data={"name": "Eve", "email": "ada@example.com", **token}),
            web.post("/photos/", data={"title": "Hills", **token}, files=no_image),
            web.post("/photos/process/", data=token),
            web.get("/reports/"),
        ):
            yield status_and_text(answer, next(expected)[1])


def refused_calls(api: str) -> Iterator[tuple[int, str]]:
    """Yield the FastAPI app's responses to bad input."""
    expected = iter(REFUSALS[6:])
    with httpx.Client(base_url=api, timeout=30) as web:
        for answer in (
            web.post("/signup", json={"name": "Bob", "email": "bob@example.com"}),
            web.post("/signup", json={"name": "Eve", "email": "nowhere"}),
            web.post("/photos/999/resize", json={"width": 100}),
            web.post("/photos/1/resize", json={"width": 1}),
        ):
            yield status_and_text(answer, next(expected)[1])


def status_and_text(answer: httpx.Response, expected: str) -> tuple[int, str]:
    return answer.status_code, expected if expected in answer.text else answer.text
