"""Where the trace of a task is shown."""

from taskq_core.views import trace_url
from tests.rows import rows

URL = "https://tempo.example/trace/{trace_id}?from=taskq"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_task_with_a_trace_has_a_link() -> None:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}

    assert trace_url(URL, headers) == f"https://tempo.example/trace/{TRACE}?from=taskq"
    assert trace_url("", headers) is None


@rows(
    "traceparent",
    [
        None,
        "",
        "x",
        "00-../../evil-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01\n",
    ],
)
def test_an_invalid_trace_has_no_link(traceparent: str | None) -> None:
    assert trace_url(URL, {} if traceparent is None else {"traceparent": traceparent}) is None
