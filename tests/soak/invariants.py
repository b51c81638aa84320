"""The list of all invariants, by number."""

from collections.abc import Callable, Sequence

from tests.soak import (
    invariants_bounds,
    invariants_durable,
    invariants_flows,
    invariants_limits,
    invariants_rules,
    invariants_runs,
    invariants_state,
)
from tests.soak.evidence import Evidence, Verdict

INVARIANTS: Sequence[Callable[[Evidence], Verdict]] = (
    invariants_bounds.as_expected,
    invariants_state.one_place,
    invariants_state.active_is_leased,
    invariants_state.at_rest,
    invariants_state.nothing_lost,
    invariants_state.nothing_invented,
    invariants_runs.extra_runs,
    invariants_runs.owners_only,
    invariants_runs.bounded_runs,
    invariants_runs.bounded_concurrency,
    invariants_state.counters_agree,
    invariants_bounds.bounded_recovery,
    invariants_bounds.flat_and_quick,
    invariants_state.no_canary,
    invariants_state.effects_add_up,
    invariants_bounds.truthful_health,
    invariants_flows.flows_end,
    invariants_flows.steps_in_order,
    invariants_limits.places_held,
    invariants_limits.rates_kept,
    invariants_limits.sequences_in_order,
    invariants_rules.one_of_each_key,
    invariants_rules.iterations_continue,
    invariants_rules.one_dead_letter_each,
    invariants_rules.in_time,
    invariants_limits.urgent_first,
    invariants_rules.nothing_left_over,
    invariants_durable.steps_signals_and_parts,
)


def check_invariants(evidence: Evidence) -> list[Verdict]:
    """Check every invariant."""
    return [invariant(evidence) for invariant in INVARIANTS]
