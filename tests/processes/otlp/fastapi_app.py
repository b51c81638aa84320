"""A FastAPI app that knows the tasks of the Django site by their names only."""

import os
from typing import Any

from fastapi import FastAPI

from taskq_core import TaskQ
from taskq_fastapi import ClientDep, taskq_lifespan
from tests.processes.otlp.depot.secret import SECRET

taskq = TaskQ(os.environ["TASKQ_URL"], enqueue_timeout=30)
app = FastAPI(lifespan=taskq_lifespan(taskq))


@app.post("/enqueue/{what}")
async def enqueue(what: str, client: ClientDep) -> dict[str, Any]:
    handle = await client.enqueue(taskq.remote(f"depot:{what}").s(secret=SECRET))
    return {"id": handle.id}
