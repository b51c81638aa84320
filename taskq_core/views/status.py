"""Build the status of a task for users of an app: state, progress, times and outcome, without the payload."""

from dataclasses import asdict
from typing import Any

import msgspec

from taskq_core.handles.records import TaskInfo
from taskq_core.wire import TaskState


def status_of(info: TaskInfo, *, show_results: bool, show_errors: bool) -> dict[str, Any]:
    """Return the status of a task as values for JSON.

    Args:
        info: The task.
        show_results: Include its progress, and its result once it is completed.
        show_errors: Include the text of its last error.
    """
    has_result = show_results and info.state is TaskState.COMPLETED
    progress = info.progress if show_results else None
    return {
        "id": info.id,
        "queue": info.queue,
        "name": info.name,
        "state": info.state.value,
        "is_final": info.is_final,
        "attempt": info.attempts_made,
        "max_attempts": info.max_retry + 1,
        "next_run_at": info.next_run_at,
        "waits_for_limit": info.waits_for_limit,
        "wait": None if info.wait is None else asdict(info.wait),
        "started_at": info.last_started_at,
        "ended_at": info.ended_at,
        "progress": None if progress is None else asdict(progress),
        "result": _json(info.result) if has_result else None,
        "result_error": str(info.oversized_result) if has_result and info.oversized_result else None,
        "error": info.last_error or None if show_errors else None,
    }


def _json(data: bytes) -> Any:
    """Decode JSON. Return None if the data is empty, or is not JSON. A Go task may have written such data."""
    try:
        return msgspec.json.decode(data) if data else None
    except msgspec.DecodeError:
        return None
