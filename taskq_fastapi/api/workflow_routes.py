"""Routes about workflows."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict

from taskq_core import TaskQ
from taskq_core.views import MEMBERS_MAX, WorkflowDetail, WorkflowFilter
from taskq_core.workflow import WorkflowState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import AnyQueueQuery, PageQuery, PageSizeQuery, Parts, QueuePath, QueueQuery
from taskq_fastapi.api.problems import responses

WorkflowPath = Annotated[
    str, Path(description="Id of the workflow.", examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])
]


class WorkflowAction(StrEnum):
    """What is done to a workflow."""

    CANCEL = "cancel"
    """Its steps that have not begun do not run, those that run are told to end."""
    RETRY = "retry"
    """Its steps that failed run again, and it goes on from there."""


class WorkflowChange(BaseModel):
    """What is to be done to a workflow."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"action": "retry"}]})

    action: WorkflowAction


def add_workflow_routes(router: APIRouter, taskq: TaskQ, parts: Parts) -> None:
    """Add the routes about workflows."""
    dashboard = parts.dashboard
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/workflows", tags=["workflows"], responses=responses(404))
    async def workflows(queue: QueueQuery, page: PageQuery = 1, page_size: PageSizeQuery = 30) -> models.Workflows:
        """List the workflows whose home a queue is: those that run first, then those that have ended."""
        found = await dashboard.workflows(queue, skip=(page - 1) * page_size, count=page_size)
        return models.Workflows.model_validate(found)

    @router.get("/workflows/search", tags=["workflows"], responses=responses())
    async def search_workflows(
        queue: AnyQueueQuery = None,
        state: Annotated[WorkflowState | None, Query(description="How they stand.")] = None,
        text: Annotated[str, Query(description="Part of their id or name.", examples=["order"])] = "",
        cursor: Annotated[str | None, Query(description="`cursor` of the answer before, to go on.")] = None,
    ) -> models.WorkflowSearch:
        """Look at workflows of all queues for those that fit, at most 2 000 with each request."""
        names = await parts.inspector.queues()
        counts = await dashboard.workflow_counts([name for name in names if queue in (None, name)])
        wanted = WorkflowFilter(queue=queue, state=state, text=text)
        return models.WorkflowSearch.model_validate(await dashboard.search_workflows(counts, wanted, cursor=cursor))

    @router.get("/workflow-steps/{queue}/{workflow_id:taskq_any}", tags=["workflows"], responses=responses(404, 409))
    async def workflow_step(
        queue: QueuePath,
        workflow_id: WorkflowPath,
        step: Annotated[str, Query(description="Name of the step.", examples=["resize"])],
        shown: ShownDep,
        page: PageQuery = 1,
        failed: Annotated[
            bool, Query(description="Members that have failed alone: so many as are on a page, on the first one.")
        ] = False,
        page_size: Annotated[int, Query(ge=1, le=MEMBERS_MAX, description="Most members on a page.")] = 30,
    ) -> models.StepDetail:
        """Tell one step of a workflow with what it returned, or a group with its members, page by page."""
        found = await dashboard.workflow_step(
            queue, workflow_id, step, skip=(page - 1) * page_size, count=page_size, only_failed=failed
        )
        return models.step_of(found, shown)

    @router.get("/workflows/{queue}/{workflow_id:taskq_any}", tags=["workflows"], responses=responses(404, 409))
    async def workflow(queue: QueuePath, workflow_id: WorkflowPath, shown: ShownDep) -> models.Workflow:
        """Tell one workflow with its steps, each behind those it comes after."""
        found: WorkflowDetail = await dashboard.workflow(queue, workflow_id)
        return models.workflow_of(found.graph, shown)

    @router.post(
        "/workflows/{queue}/{workflow_id:taskq_any}", tags=["workflows"], responses=responses(400, 404, 409, 413, 415)
    )
    async def change_workflow(
        queue: QueuePath, workflow_id: WorkflowPath, body: WorkflowChange, audit: AuditDep
    ) -> models.WorkflowChanged:
        """Cancel a workflow, or let it go on from the steps that failed."""
        handle = taskq.workflow(workflow_id, queue)
        with audit.action(f"{body.action.value}_workflow", queue=queue, workflow=workflow_id) as outcome:
            if body.action is WorkflowAction.CANCEL:
                outcome["done"] = int(await handle.acancel())
            else:
                outcome["done"] = await handle.aretry()
        return models.WorkflowChanged(action=body.action.value, done=outcome["done"])
