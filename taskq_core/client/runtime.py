"""The Redis keys, connections and clients of a queue application for one set of settings. Connects at the first use."""

from dataclasses import dataclass, replace
from pathlib import Path

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.sync import SyncRunner
from taskq_core.client import AsyncClient, Client
from taskq_core.client.circuit import Circuit
from taskq_core.client.outbox import Delivery, Outbox, OutboxSender
from taskq_core.client.preparer import Preparer
from taskq_core.client.sender import Sender, TransactionHook
from taskq_core.handles.source import HandleSource
from taskq_core.settings import Settings
from taskq_core.tasks.registry import Registry
from taskq_core.telemetry import Tracing
from taskq_core.telemetry.redaction import Redaction
from taskq_core.wire import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The Redis to which a queue application sends its requests, or a replacement in tests.

    Attributes:
        propagates: True if a task runs inside its send, and the sender gets the task's error. Only in tests.
    """

    endpoint: Endpoint
    runner: SyncRunner
    async_runner: AsyncRunner
    propagates: bool = False


class Runtime:
    """The Redis keys, connections and clients of a queue application for one set of settings."""

    def __init__(
        self,
        settings: Settings,
        app: Registry,
        *,
        embedded_folder: Path,
        hook: TransactionHook | None,
        outbox: Outbox | None,
    ) -> None:
        timeout_s = float(settings.enqueue_timeout)  # type: ignore[arg-type]  # Settings has turned it into seconds
        self.settings = settings
        self.timeout_s = timeout_s
        """Maximum seconds that an enqueue or a read of a task may take."""
        self.endpoint = Endpoint(settings.url, embedded_folder=embedded_folder)
        self.keys = Keys(settings.prefix)
        trace = settings.trace
        self.redaction = Redaction(settings.log.messages)
        self.tracing = Tracing(
            relation=trace.relation,
            baggage=trace.baggage,
            redaction=self.redaction,
            server=self.endpoint.server,
            opt_in=trace.opt_in,
            create_spans=trace.create_spans,
        )
        self.runner = SyncRunner(self.endpoint)
        self.async_runner = AsyncRunner(self.endpoint)
        source = HandleSource(
            self.keys,
            self.runner,
            self.async_runner,
            timeout_s=timeout_s,
            find_in_outbox=None if outbox is None else outbox.afind,
        )
        self.source = source
        self.preparer = preparer = Preparer(source, self.tracing, app)
        circuit = Circuit(
            settings.circuit_breaker, address=self.endpoint.address, opened=preparer.metrics.circuit_opened
        )
        self.endpoint.count_steps = preparer.metrics.sent
        self._sender = sender = Sender(preparer, circuit, settings.limits, timeout_s=timeout_s)
        self.delivery = Delivery(sender)
        self.hook = hook
        self.outbox: OutboxSender | None = None
        if outbox is not None:
            shortcut = Circuit(
                replace(settings.circuit_breaker, failures=1),
                address=self.endpoint.address,
                opened=preparer.metrics.circuit_opened,
                consequence="tasks now wait in the outbox",
            )
            self.outbox = OutboxSender(outbox, self.delivery, circuit=shortcut, observer=preparer.observer)
        self.client = Client(sender, hook=hook, outbox=self.outbox)
        self.async_client = AsyncClient(sender, blocking=self.client, hook=hook, outbox=self.outbox)
        self._own = Store(endpoint=self.endpoint, runner=self.runner, async_runner=self.async_runner)

    def use(self, store: Store | None) -> None:
        """Send all further requests to another store, also from existing clients. None: the Redis of the settings."""
        store = store or self._own
        self.endpoint, self.runner, self.async_runner = store.endpoint, store.runner, store.async_runner
        self.endpoint.count_steps = self.preparer.metrics.sent
        self.source.send_through(store.runner, store.async_runner)
        self._sender.reset()
        if self.outbox is not None:
            self.outbox.circuit.reset()

    def close(self) -> None:
        """Close the connections of blocking code, and release the embedded server. Other stores are not closed."""
        self._own.runner.close()
        self._own.endpoint.close()
