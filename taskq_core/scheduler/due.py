"""The catch-up policy: choose which due firings of a schedule entry to enqueue now. Pure functions."""

from taskq_core.tasks.periodic import CatchUp
from taskq_core.wire.cron import Schedule

ON_TIME_S = 60
"""Seconds after its due time at which a firing counts as missed. The change to a new leader or a Redis failover takes
less."""


def due_firings(
    schedule: Schedule, mark_s: int, now_s: int, *, catch_up: CatchUp, window_s: float, limit: int
) -> list[int]:
    """Return at most `limit` firings to enqueue, oldest first. All firings before the first returned one are skipped.

    Args:
        schedule: When the entry fires.
        mark_s: The last firing that was handled, or the start of the entry; Unix s.
        now_s: Current time, Unix s.
        catch_up: Policy for missed firings.
        window_s: Age in seconds beyond which a missed firing is not caught up.
        limit: Maximum number of firings.
    """
    first_s = schedule.next_after(mark_s)
    if first_s is None or first_s > now_s:
        return []
    missed_until_s = now_s - ON_TIME_S - 1  # a firing at or before this second counts as missed
    if first_s > missed_until_s:
        return _firings(schedule, mark_s, now_s, limit)
    caught_from_s = now_s - int(window_s) - 1
    if catch_up is CatchUp.ALL:
        return _firings(schedule, schedule.anchor(mark_s, min(caught_from_s, missed_until_s)), now_s, limit)
    on_time = _firings(schedule, schedule.anchor(mark_s, missed_until_s), now_s, limit)
    if catch_up is CatchUp.SKIP or on_time:
        return on_time
    last_s = _last_firing(schedule, mark_s, max(mark_s, caught_from_s), missed_until_s)
    return [] if last_s is None else [last_s]


def next_firing(schedule: Schedule, mark_s: int, now_s: int) -> int | None:
    """Return the time of the first firing after now, in Unix seconds. Return None if the schedule has ended."""
    return schedule.next_after(schedule.anchor(mark_s, max(mark_s, now_s)))


def _firings(schedule: Schedule, after_s: int, until_s: int, limit: int) -> list[int]:
    found: list[int] = []
    moment_s = schedule.next_after(after_s)
    while moment_s is not None and moment_s <= until_s and len(found) < limit:
        found.append(moment_s)
        moment_s = schedule.next_after(moment_s)
    return found


def _last_firing(schedule: Schedule, mark_s: int, after_s: int, until_s: int) -> int | None:
    """Return the last firing in a time span. Search backwards in growing steps, so that a long span costs little."""
    step_s = ON_TIME_S
    while after_s < until_s:
        from_s = max(after_s, until_s - step_s)
        last_s, moment_s = None, schedule.next_after(schedule.anchor(mark_s, from_s))
        while moment_s is not None and moment_s <= until_s:
            last_s, moment_s = moment_s, schedule.next_after(moment_s)
        if last_s is not None or from_s == after_s:
            return last_s
        step_s *= 4
    return None
