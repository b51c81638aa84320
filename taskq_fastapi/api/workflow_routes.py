"""Routes about workflows."""

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict

from taskq_core.views import MEMBERS_MAX, WorkflowFilter
from taskq_core.workflow import WorkflowState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import AnyQueueQuery, CursorQuery, PageQuery, PageSizeQuery, Parts, QueuePath, QueueQuery

WorkflowPath = Annotated[
    str, Path(description="Id of the workflow.", examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])
]


class WorkflowAction(StrEnum):
    """An action on a workflow."""

    CANCEL = "cancel"
    """Drop waiting steps, and ask running steps to stop."""
    RETRY = "retry"
    """Run failed steps again, and continue the workflow from there."""


class WorkflowChange(BaseModel):
    """The action on a workflow."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"action": "retry"}]})

    action: WorkflowAction


def add_workflow_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about workflows."""
    dashboard = parts.dashboard
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/workflows", tags=["workflows"], response_model=models.Workflows)
    async def workflows(queue: QueueQuery, page: PageQuery = 1, page_size: PageSizeQuery = 30) -> Any:
        """List the workflows of a home queue: running workflows, then ended workflows, the newest first."""
        return await dashboard.workflows(queue, skip=(page - 1) * page_size, count=page_size)

    @router.get("/workflows/search", tags=["workflows"], response_model=models.WorkflowSearch)
    async def search_workflows(
        queue: AnyQueueQuery = None,
        state: Annotated[WorkflowState | None, Query(description="Their state.")] = None,
        text: Annotated[str, Query(description="Part of their id, name or home queue.", examples=["order"])] = "",
        cursor: CursorQuery = None,
    ) -> Any:
        """Search workflows. Each request reads at most 2,000.

        Repeat it with `cursor` until `next` is null: only then does an empty answer mean that no workflow matches.
        """
        names = await parts.inspector.queues()
        counts = await dashboard.workflow_counts([name for name in names if queue in (None, name)])
        wanted = WorkflowFilter(queue=queue, state=state, text=text)
        return await dashboard.search_workflows(counts, wanted, cursor=cursor)

    @router.get("/workflow-steps/{queue}/{workflow_id:taskq_any}", tags=["workflows"], response_model=models.StepDetail)
    async def workflow_step(
        queue: QueuePath,
        workflow_id: WorkflowPath,
        step: Annotated[str, Query(description="Name of the step.", examples=["resize"])],
        shown: ShownDep,
        page: PageQuery = 1,
        failed: Annotated[bool, Query(description="True: return only failed members, at most one page.")] = False,
        page_size: Annotated[int, Query(ge=1, le=MEMBERS_MAX, description="Maximum number of members on a page.")] = 30,
    ) -> Any:
        """Return one step of a workflow with its result, or a group with a page of its members."""
        found = await dashboard.workflow_step(
            queue, workflow_id, step, skip=(page - 1) * page_size, count=page_size, only_failed=failed
        )
        return models.step_of(found, shown)

    @router.get("/workflows/{queue}/{workflow_id:taskq_any}", tags=["workflows"], response_model=models.Workflow)
    async def workflow(queue: QueuePath, workflow_id: WorkflowPath, shown: ShownDep) -> Any:
        """Return one workflow with its steps in order."""
        return models.workflow_of((await dashboard.workflow(queue, workflow_id)).graph, shown)

    @router.post("/workflows/{queue}/{workflow_id:taskq_any}", tags=["workflows"])
    async def change_workflow(
        queue: QueuePath, workflow_id: WorkflowPath, body: WorkflowChange, audit: AuditDep
    ) -> models.WorkflowChanged:
        """Cancel a workflow, or run its failed steps again."""
        handle = parts.taskq.workflow(workflow_id, queue)
        with audit.action(f"{body.action.value}_workflow", queue=queue, workflow=workflow_id) as outcome:
            if body.action is WorkflowAction.CANCEL:
                outcome["done"] = int(await handle.acancel())
            else:
                outcome["done"] = await handle.aretry()
        return models.WorkflowChanged(action=body.action.value, done=outcome["done"])
