"""Outcomes and durations of runs by task type."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskq_core.broker.operations import diagnosis, samples
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerReplyError
from taskq_core.inspector import error_rate
from taskq_core.settings import check_whole
from taskq_core.wire import Keys
from taskq_core.wire.tallies import HOUR_S, HOURS_KEPT, TypeCounters

HOURS_MOST = HOURS_KEPT - 2
"""Maximum number of full hours for which runs by type are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRuns:
    """Outcomes and durations of the runs of one task type.

    Attributes:
        name: Name of the task. `_other`: all further types of an hour that has more than 200 types.
        processed: Number of runs that used an attempt.
        failed: Number of these runs that failed.
        archived: Number of these runs after which the task was archived.
        total: Total duration of the runs.
        median: Median duration of the runs. The median and the percentiles are estimates. None if there were no runs.
        p95: Duration that 95 % of the runs did not exceed.
        p99: Duration that 99 % of the runs did not exceed.
    """

    name: str
    processed: int
    failed: int
    archived: int
    total: timedelta
    median: timedelta | None
    p95: timedelta | None
    p99: timedelta | None

    @property
    def error_rate(self) -> float | None:
        """Share of runs that failed, 0 to 1. None if there were no runs."""
        return error_rate(self.failed, self.processed)

    @property
    def mean(self) -> timedelta | None:
        """Mean duration of a run. None if there were no runs."""
        return self.total / self.processed if self.processed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypesOverview:
    """Outcomes and durations of runs by task type, the type with most runs first.

    Attributes:
        since: The full hour (UTC) from which runs are counted.
        as_of: Time of the reading, by Redis's clock. Workers report their numbers every ten seconds.
        types: The types. Go workers do not count by type.
    """

    since: datetime
    as_of: datetime
    types: Sequence[TypeRuns]


def read_types(keys: Keys, names: Sequence[str], *, hours: int = 24) -> RequestPlan[TypesOverview]:
    """Return outcomes and durations of runs by task type, summed over several queues.

    Args:
        names: Names of the queues. A queue that does not exist counts as 0.
        hours: Full hours before the current hour, 0 to 24.

    Raises:
        ConfigurationError: The number of hours is out of bounds.
    """
    check_whole("hours", hours, least=0, most=HOURS_MOST)
    now_s = yield from ask(diagnosis.read_time())
    this_hour = int(now_s) // HOUR_S
    sums: dict[str, TypeCounters] = {}
    for name in names:
        for hour in range(this_hour - hours, this_hour + 1):
            try:
                found = yield from ask(samples.read_tally(keys.queue(name), hour))
            except BrokerReplyError:
                continue  # a key of the wrong type, which `taskq doctor` reports
            for each, tally in found.items():
                sums.setdefault(each, TypeCounters.empty()).add(tally)
    types = [_type_runs(name, tally) for name, tally in sums.items()]
    return TypesOverview(
        since=utc_datetime((this_hour - hours) * HOUR_S),
        as_of=utc_datetime(now_s),
        types=tuple(sorted(types, key=lambda each: (-each.processed, each.name))),
    )


def _type_runs(name: str, tally: TypeCounters) -> TypeRuns:
    def share(of: float) -> timedelta | None:
        seconds = tally.percentile_s(of)
        return None if seconds is None else timedelta(seconds=seconds)

    return TypeRuns(
        name=name,
        processed=tally.processed,
        failed=tally.failed,
        archived=tally.archived,
        total=timedelta(milliseconds=tally.total_ms),
        median=share(0.5),
        p95=share(0.95),
        p99=share(0.99),
    )
