"""Dependencies that give routes and WebSockets the clients and inspectors of the app's queue applications.

A dependency finds the queue application of the request, so one module of routes works in any app, and several apps in a
process stay separate. `client_dep(name)` returns equal dependencies for equal names, so a test can replace it with
`app.dependency_overrides[client_dep()] = lambda: double`.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from taskq_core import AsyncClient, Client, ConfigurationError
from taskq_core.inspector import AsyncInspector
from taskq_fastapi.applications import DEFAULT_NAME, find
from taskq_fastapi.needs import is_given_to_plain, name_of


@dataclass(frozen=True, slots=True)
class AsyncClientDependency:
    """A dependency on the `AsyncClient` of the queue application with this name. Equal for equal names."""

    name: str

    async def __call__(self, connection: HTTPConnection) -> AsyncClient:
        """Return the client. FastAPI calls this.

        Raises:
            ConfigurationError: The route is a plain function, which cannot await the calls of the client.
        """
        endpoint = connection.scope.get("endpoint")
        if endpoint is not None and is_given_to_plain(self, endpoint):
            raise ConfigurationError(
                f"{name_of(endpoint)} is a `def` route with an AsyncClient, and cannot await its coroutines; "
                "make it `async def`, or use SyncClientDep"
            )
        return find(connection, self.name).async_client


@dataclass(frozen=True, slots=True)
class SyncClientDependency:
    """A dependency on the blocking `Client` of the queue application with this name. Equal for equal names."""

    name: str

    async def __call__(self, connection: HTTPConnection) -> Client:
        """Return the client. FastAPI calls this. As a coroutine it needs no thread."""
        return find(connection, self.name).client


@dataclass(frozen=True, slots=True)
class InspectorDependency:
    """A dependency on an `AsyncInspector` of the queue application with this name. Equal for equal names."""

    name: str

    async def __call__(self, connection: HTTPConnection) -> AsyncInspector:
        """Return an inspector. FastAPI calls this."""
        return AsyncInspector(find(connection, self.name))


def client_dep(name: str = DEFAULT_NAME) -> AsyncClientDependency:
    """Return the dependency on the `AsyncClient` of a queue application.

    Args:
        name: Its name in the mapping given to `taskq_lifespan`.

    Example:
        `MailClient = Annotated[AsyncClient, Depends(client_dep("mail"))]`
    """
    return AsyncClientDependency(name)


def sync_client_dep(name: str = DEFAULT_NAME) -> SyncClientDependency:
    """Return the dependency on the blocking `Client` of a queue application, for `def` routes. See `client_dep`."""
    return SyncClientDependency(name)


def inspector_dep(name: str = DEFAULT_NAME) -> InspectorDependency:
    """Return the dependency on an `AsyncInspector` of a queue application. See `client_dep`."""
    return InspectorDependency(name)


ClientDep = Annotated[AsyncClient, Depends(client_dep())]
"""The `AsyncClient` of the app's queue application, for `async def` routes and WebSockets."""
SyncClientDep = Annotated[Client, Depends(sync_client_dep())]
"""The blocking `Client` of the app's queue application, for `def` routes, which FastAPI runs in threads."""
InspectorDep = Annotated[AsyncInspector, Depends(inspector_dep())]
"""An `AsyncInspector` of the app's queue application, to read and change queues and tasks."""
