"""Daily counters of queues, added up."""

from collections.abc import Sequence
from datetime import timedelta

from taskq_core.broker.operations import diagnosis, views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerReplyError
from taskq_core.inspector import DailyStats
from taskq_core.inspector.look import HISTORY_DAYS
from taskq_core.settings import check_whole
from taskq_core.wire import Keys

DAYS_CHOICES = (7, 30, HISTORY_DAYS)
"""Spans, in days, that a chart of the past offers. Counters are kept for the longest."""


def read_history(keys: Keys, names: Sequence[str], *, days: int = 30) -> RequestPlan[Sequence[DailyStats]]:
    """Return the daily counters of queues, added up, the oldest day first. Days are UTC.

    Args:
        names: Names of the queues. A queue that does not exist counts as 0.
        days: Number of days, 1 to 90.

    Raises:
        ConfigurationError: The number of days is out of bounds.
    """
    check_whole("days", days, least=1, most=HISTORY_DAYS)
    today = utc_datetime((yield from ask(diagnosis.read_time()))).date()
    dates = [today - timedelta(days=back) for back in reversed(range(days))]
    totals = [(0, 0)] * days
    for name in names:
        try:
            numbers: Sequence[tuple[int, int]] = yield from ask(views.count_days(keys.queue(name), dates))
        except BrokerReplyError:
            continue
        totals = [(ran + more, bad + more_bad) for (ran, bad), (more, more_bad) in zip(totals, numbers, strict=True)]
    return tuple(
        DailyStats(day=day, processed=processed, failed=failed)
        for day, (processed, failed) in zip(dates, totals, strict=True)
    )
