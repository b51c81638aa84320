"""Send the requests of visitors to the two sites over HTTP, as a browser and a program would."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image, ImageDraw

from example_project.demo.errors import DemoError

SITE, API = "studio-site", "studio-api"
PHOTO_SIZE = (1600, 1000)
EDITOR = "editor@example.com"
MAIL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedTask:
    """An enqueued task, as reported by a site."""

    name: str
    id: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request to a site, and the tasks that it enqueued."""

    service: str
    """Name of the process that answered."""
    path: str
    status: int
    tasks: tuple[EnqueuedTask, ...]
    answer: Mapping[str, Any] = field(default_factory=dict)
    """The response of the API."""

    def __str__(self) -> str:
        return f"POST {self.path} on the {'Django site' if self.service == SITE else 'FastAPI app'}"


class Browser:
    """Fills in the Django site's forms."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)

    def submit(self, path: str, data: dict[str, Any], files: dict[str, tuple[str, bytes]] | None = None) -> Visit:
        """Submit a form. Read the enqueued tasks from the page to which the site redirects."""
        self._get("/")  # sets the CSRF cookie of the form
        token = self._http.cookies["csrftoken"]
        answer = self._http.post(path, data={**data, "csrfmiddlewaretoken": token}, files=files)
        if answer.status_code != 302:
            raise DemoError(f"POST {path} answered {answer.status_code}, expected 302:\n{answer.text[:500]}")
        page = self._get(answer.headers["Location"])
        found = re.findall(r'<code class="task" data-queue="([^"]+)">(\S+) (\S+)</code>', page)
        tasks = tuple(EnqueuedTask(name=name, id=task_id, queue=queue) for queue, name, task_id in found)
        return Visit(service=SITE, path=path, status=answer.status_code, tasks=tasks)

    def photo_ids(self) -> list[str]:
        """Return the ids of the photos that the page offers for processing."""
        return re.findall(r'name="photos" value="(\d+)"', self._get("/"))

    def _get(self, path: str) -> str:
        answer = self._http.get(path)
        if answer.status_code != 200:
            raise DemoError(f"GET {path} answered {answer.status_code}, expected 200:\n{answer.text[:500]}")
        return answer.text

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def post(url: str, path: str, data: dict[str, Any] | None = None) -> Visit:
    """Send a request to the API."""
    answer = httpx.post(url + path, json=data, timeout=60)
    if answer.status_code not in (200, 202):
        raise DemoError(f"POST {path} answered {answer.status_code}, expected 200 or 202:\n{answer.text[:500]}")
    body = answer.json()
    status = httpx.get(f"{url}/tasks/status/{body['queue']}/{body['id']}", timeout=60)
    if status.status_code != 200:
        raise DemoError(f"GET {status.url.path} answered {status.status_code}, expected 200:\n{status.text[:500]}")
    task = EnqueuedTask(name=status.json()["name"], id=body["id"], queue=body["queue"])
    return Visit(service=API, path=path, status=answer.status_code, tasks=(task,), answer=body)


def approve(site_url: str, messages: Sequence[EmailMessage]) -> None:
    """Wait for the mail to the editor, open its link, and press the button Approve."""
    deadline = time.monotonic() + MAIL_TIMEOUT_S
    while not (found := [each for each in messages if each["To"] == EDITOR]):
        if time.monotonic() > deadline:
            raise DemoError(f"no mail to {EDITOR} arrived within {MAIL_TIMEOUT_S:.0f} s")
        time.sleep(0.05)
    link = site_url + urlsplit(found[0].get_content().strip()).path
    page = httpx.get(link, timeout=30)
    [button] = re.findall(r'formaction="(.+?)">Approve<', page.text)
    answer = httpx.post(link + button, timeout=30)
    if answer.status_code != 200:
        raise DemoError(f"POST {link} answered {answer.status_code}, expected 200:\n{answer.text[:500]}")


def read_stream(api_url: str, task: EnqueuedTask) -> list[Any]:
    """Return the values that a task has emitted."""
    answer = httpx.get(f"{api_url}/tasks/stream/{task.queue}/{task.id}", timeout=60)
    return [
        json.loads(data)["value"] for data in re.findall(r"^event: item\n.*\ndata: (.*)$", answer.text, re.MULTILINE)
    ]


def photo(kind: str) -> bytes:
    """Return the bytes of a JPEG or PNG picture of a landscape."""
    image = Image.merge("RGB", [Image.radial_gradient("L").resize(PHOTO_SIZE)] * 3)
    draw = ImageDraw.Draw(image)
    width, height = PHOTO_SIZE
    for row, green in enumerate(range(90, 200, 10)):
        top = height // 2 + row * height // 20
        draw.polygon(
            [(0, top), (width // 3, top - 160), (width, top + 60), (width, height), (0, height)], (20, green, 90)
        )
    draw.ellipse((1150, 120, 1350, 320), (250, 200, 60))
    data = BytesIO()
    image.save(data, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return data.getvalue()


def make_visits(site_url: str, api_url: str) -> list[Visit]:
    """Visit both sites, and return the requests in their order."""
    browser = Browser(site_url)
    try:
        visits = [
            browser.submit("/signup/", {"name": "Ada", "email": "ada@example.com"}),
            browser.submit("/photos/", {"title": "Hills"}, {"image": ("hills.jpg", photo("JPEG"))}),
            browser.submit("/photos/", {"title": "Sunset"}, {"image": ("sunset.png", photo("PNG"))}),
        ]
        photo_ids = browser.photo_ids()
        visits += [
            browser.submit("/photos/process/", {"photos": photo_ids}),
            browser.submit("/reports/", {}),
        ]
    finally:
        browser.close()
    return [
        *visits,
        post(api_url, "/signup", {"name": "Bob", "email": "bob@example.com"}),
        post(api_url, f"/photos/{photo_ids[0]}/publish"),
        post(api_url, f"/photos/{photo_ids[0]}/resize", {"width": 480}),
        post(api_url, "/reports"),
    ]
