"""Check the results of the demo: every task is done, its effects are visible, and every request has one trace."""

from collections import Counter
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from example_project.demo.errors import DemoError
from example_project.demo.otlp import Span, Traces
from example_project.demo.visits import EDITOR, PHOTO_SIZE, EnqueuedTask, Visit
from taskq_core.telemetry.names import STEP_NAME, TASK_ID

WORKER = "studio-worker"
EXPECTED_TASKS = {
    "/signup/": ["email:deliver"],
    "/photos/": ["image:resize"],
    "/photos/process/": ["image:resize", "image:watermark", "image:compress"] * 2,
    "/reports/": ["report:studio"],
    "/signup": ["email:deliver"],
    "/photos/1/publish": ["photo:publish"],
    "/photos/2/publish": ["photo:publish"],
    "/photos/1/resize": ["image:resize"],
    "/photos/2/resize": ["image:resize"],
    "/reports": ["report:studio"],
}
TRACE_TIMEOUT_S = 10.0


def check_enqueued(visits: Sequence[Visit]) -> None:
    """Check that each request enqueued the expected tasks, and that all tasks have different ids."""
    for visit in visits:
        names = [task.name for task in visit.tasks]
        if Counter(names) != Counter(EXPECTED_TASKS[visit.path]):
            raise DemoError(f"{visit} enqueued {names}, expected {EXPECTED_TASKS[visit.path]}")
    ids = [task.id for visit in visits for task in visit.tasks]
    if len(set(ids)) != len(ids):
        raise DemoError(f"several requests reported the same task id: {ids}")


def check_mail(messages: Sequence[EmailMessage]) -> None:
    """Check that the customers received one welcome mail each, and the editor one question."""
    received = sorted((message["To"], message["Subject"]) for message in messages)
    expected = [(to, "Welcome to the studio") for to in ("ada@example.com", "bob@example.com")]
    expected.append((EDITOR, "Publish Sunset?"))
    if received != expected:
        raise DemoError(f"the mail server received {received}, expected {expected}")


def check_results(visits: Sequence[Visit], results: Mapping[str, Any], media: Path) -> None:
    """Check the results of all tasks, and the files that they wrote."""
    for visit in visits:
        for task in visit.tasks:
            result = results[task.id]
            if task.name == "email:deliver":
                is_right = result is None
            elif task.name == "report:studio":
                is_right = result["photos"] == 2 and sum(result["photos_by_day"].values()) == 2
            else:
                paths = result if isinstance(result, list) else [result]
                is_right = all(_is_processed(task, media / path, media / "originals") for path in paths)
                is_right &= len(paths) == (2 if task.name == "photo:publish" else 1)
            if not is_right:
                raise DemoError(f"{task.name} {task.id} has the wrong result {result!r}")
    report = visits[-1].answer["report"]
    if report["customers"] != 2:
        raise DemoError(f"the last report counted {report['customers']} customers, expected 2")


def _is_processed(task: EnqueuedTask, path: Path, originals: Path) -> bool:
    name, _, variant = path.stem.rpartition("-")
    [original] = originals.glob(f"{name}.*")
    with Image.open(path) as image, Image.open(original) as before:
        if task.name in ("image:resize", "photo:publish"):
            width = int(variant.removesuffix("px"))
            return image.size == (width, round(PHOTO_SIZE[1] * width / PHOTO_SIZE[0]))
        if task.name == "image:compress":
            return image.format == "JPEG" and path.stat().st_size < original.stat().st_size
        lower_edge = (0, PHOTO_SIZE[1] - 60, PHOTO_SIZE[0], PHOTO_SIZE[1])
        return image.format == before.format and image.crop(lower_edge).tobytes() != before.crop(lower_edge).tobytes()


def trace_of(visit: Visit, traces: Traces) -> str:
    """Wait until the whole trace of a request has arrived, and return its id.

    Raises:
        DemoError: A span of the request, or of the enqueue or the run of one of its tasks, is missing.
    """
    trace_ids = {_trace_of_task(visit, task, traces) for task in visit.tasks}
    if len(trace_ids) != 1:
        raise DemoError(f"{visit} has {len(trace_ids)} traces, expected one: {sorted(trace_ids)}")
    return trace_ids.pop()


def _trace_of_task(visit: Visit, task: EnqueuedTask, traces: Traces) -> str:
    def find_trace(arrived: Traces) -> str | None:
        process = arrived.find("consumer", {TASK_ID: task.id})
        if process is None or _missing(visit, task, process, arrived):
            return None
        return process.trace_id

    trace_id = traces.wait_for(find_trace, TRACE_TIMEOUT_S)
    if trace_id is not None:
        return trace_id
    process = traces.find("consumer", {TASK_ID: task.id})
    missing = "a span of its run" if process is None else _missing(visit, task, process, traces)
    raise DemoError(f"the trace of {visit}, task {task.name} {task.id}, is incomplete: {missing} has not arrived")


def _missing(visit: Visit, task: EnqueuedTask, process: Span, traces: Traces) -> str:
    """Return which span is missing between a request and the run of its task, "" if none is."""
    if process.service != WORKER or process.name != f"process {task.queue}":
        return f"a span 'process {task.queue}' of {WORKER}"
    above = traces.ancestors(process)
    # A call that sends one task at once has the span `send`. In an outbox or a bulk enqueue, each task has `create`.
    enqueue = {f"send {task.queue}", f"create {task.queue}"}
    if not any(span.kind == "producer" and span.name in enqueue for span in above):
        return f"a span 'send {task.queue}' or 'create {task.queue}' above the run (trace {process.trace_id})"
    request = above[-1]
    if request.parent_id or (request.kind, request.service, _path(request)) != ("server", visit.service, visit.path):
        return f"the request's span at the top (trace {process.trace_id})"
    if not any(span.kind == "internal" for span in traces.children(process)):
        return "a span that the task's code creates"
    last = traces.find("internal", {STEP_NAME: "publish"})
    if task.name == "photo:publish" and (last is None or not traces.ancestors(last)):
        return "the span of its last run"
    return ""


def _path(request: Span) -> str:
    """Return the URL path in a request's span, from the new or the old attribute of OpenTelemetry's conventions."""
    attributes = request.attributes
    return attributes.get("url.path") or urlsplit(attributes.get("http.url", "")).path
