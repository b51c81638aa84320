"""Test the warning for a workflow of remote tasks that no taskq worker can advance."""

import warnings

import pytest

from taskq_core import TaskQ, WorkflowUnservedWarning
from taskq_core.broker.operations import services
from taskq_core.workflow import chain
from tests.redis_server import RedisServer


def only_go(app: TaskQ) -> chain:
    return app.remote("go:resize", queue="go").s(width=3) | app.remote("go:store", queue="go").si()


def test_a_client_warns_once_a_minute_if_no_taskq_worker_serves_the_workflow(app: TaskQ) -> None:
    with pytest.warns(WorkflowUnservedWarning, match="no taskq worker serves queue 'go'") as said:
        only_go(app).delay()
    assert [each.filename for each in said] == [__file__]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only_go(app).delay()


async def test_adelay_warns_if_no_taskq_worker_serves_the_workflow(app: TaskQ) -> None:
    with pytest.warns(WorkflowUnservedWarning) as said:
        await only_go(app).adelay()

    assert [each.filename for each in said] == [__file__]


@pytest.mark.parametrize("case", ["the home is served", "another home is served", "a step has its code here"])
def test_a_client_does_not_warn_if_a_taskq_worker_serves_the_workflow(
    app: TaskQ, redis_server: RedisServer, case: str
) -> None:
    @app.task
    def here() -> None: ...

    served = "go" if case == "the home is served" else "default"
    queue = app.runtime.keys.queue(served)
    if case != "a step has its code here":
        app.runtime.runner.run(services.lead(queue.leader(services.LOOKOUT), owner="w", leader_ms=60_000))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if case == "the home is served":
            only_go(app).delay()
        elif case == "another home is served":
            only_go(app).at_home("default").delay()
        else:
            (only_go(app) | here.si()).delay()
