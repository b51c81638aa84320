"""Routes about workers, schedulers and the store."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from taskq_fastapi.api import models
from taskq_fastapi.api.access import Shown
from taskq_fastapi.api.parts import PageQuery, PageSizeQuery, Parts, QueueQuery
from taskq_fastapi.api.problems import Problem, kinds, responses


def add_worker_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about workers, schedulers and the store."""
    inspector, dashboard = parts.inspector, parts.dashboard
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806

    @router.get("/workers", tags=["workers"], responses=responses())
    async def workers() -> models.WorkersOverview:
        """List the worker processes that live, Go's too, and what they run, as of their last heartbeats."""
        return models.WorkersOverview.model_validate(await dashboard.workers())

    @router.get("/schedules", tags=["schedules"], responses=responses())
    async def schedules(shown: ShownDep, page: PageQuery = 1, page_size: PageSizeQuery = 30) -> models.Schedules:
        """List the periodic entries of all schedulers that are alive, by id."""
        found = await inspector.scheduler_entries()
        start = (page - 1) * page_size
        return models.Schedules(
            schedules=[models.schedule_of(entry, shown) for entry in found[start : start + page_size]],
            total=len(found),
            page=page,
            page_size=page_size,
        )

    @router.get("/schedules/{entry_id:taskq_any}/events", tags=["schedules"], responses=responses(404))
    async def schedule_events(
        entry_id: Annotated[str, Path(description="Id of the entry.", examples=["nightly"])],
        page: PageQuery = 1,
        page_size: PageSizeQuery = 30,
    ) -> models.SchedulerEvents:
        """List past enqueues of a periodic entry, the newest first. At most the last 1000 are kept."""
        found = await inspector.scheduler_events(entry_id, page=page, page_size=page_size)
        events = [models.SchedulerEvent.model_validate(event) for event in found]
        return models.SchedulerEvents(events=events, page=page, page_size=page_size)

    @router.get("/redis", tags=["redis"], responses=responses(), dependencies=[Depends(parts.access.inside)])
    async def redis_info() -> dict[str, str | int]:
        """Tell what Redis says of itself (`INFO`); of a cluster, one of its nodes.

        It names files, addresses and users of the server: only who may change something is told.
        """
        return dict(await inspector.redis_info())

    @router.get("/redis/state", tags=["redis"], responses=responses())
    async def store() -> models.Store:
        """Tell how Redis stands, in figures, and where queues stand in a cluster."""
        return models.Store.model_validate(await dashboard.store())

    @router.get("/redis/place", tags=["redis"], responses=responses(404))
    async def place(queue: QueueQuery) -> models.Place:
        """Tell where a queue stands in a cluster."""
        nodes = await inspector.cluster_nodes(queue)
        return models.Place(slot=await inspector.key_slot(queue), nodes=nodes)

    @router.get("/problems", tags=["problems"], responses=responses(), response_model_exclude_none=True)
    async def problems() -> list[Problem]:
        """List the kinds of problems that this API answers with. A `type` is a name; nothing is behind it."""
        return kinds()
