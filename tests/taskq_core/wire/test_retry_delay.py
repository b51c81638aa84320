import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.wire.retry_delay import QueueOrder, default_retry_delay
from tests.rows import rows

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "retry_delay.json").read_text(encoding="utf-8")
)
SELECTIONS: list[dict[str, Any]] = GOLDEN["queue_selection"]
TOLERANCE = 0.01


@rows("row", GOLDEN["default_retry_delay"], ids=lambda row: f"n={row['n']}")
def test_default_delays_match_go(row: dict[str, Any]) -> None:
    """2000 draws leave out one of 30 values with a chance of 1e-28."""
    rng = random.Random(7)

    delays = sorted({default_retry_delay(row["n"], rng).total_seconds() for _ in range(2000)})

    assert (delays[0], delays[-1], len(delays)) == (row["min_s"], row["max_s"], row["distinct_values"])
    assert {after - before for before, after in pairwise(delays)} == {row["step_s"]}


@given(st.integers())
def test_a_delay_is_bounded_for_any_count(retried: int) -> None:
    seconds = default_retry_delay(retried, random.Random(7)).total_seconds()

    assert 15 <= seconds <= 2**63 / 1e9


@rows("row", SELECTIONS, ids=lambda row: f"{row['weights']} strict={row['strict']}")
def test_weights_are_normalized_as_in_go(row: dict[str, Any]) -> None:
    assert QueueOrder(row["weights"], row["strict"], random.Random(7)).weights == row["normalized"]


@rows("row", [row for row in SELECTIONS if "order_share" in row], ids=lambda row: str(row["weights"]))
def test_queues_are_tried_in_the_same_proportion_as_in_go(row: dict[str, Any]) -> None:
    order, draws = QueueOrder(row["weights"], False, random.Random(7)), 50_000

    orders = Counter(",".join(order.next()) for _ in range(draws))

    assert set(orders) == set(row["order_share"])
    for names, share in row["order_share"].items():
        assert orders[names] / draws == pytest.approx(share, abs=TOLERANCE)
    for name, share in row["first_share"].items():
        first = sum(count for names, count in orders.items() if names.split(",")[0] == name)
        assert first / draws == pytest.approx(share, abs=TOLERANCE)


@pytest.mark.parametrize("row", [row for row in SELECTIONS if row["strict"]], ids=lambda row: str(row["weights"]))
def test_strict_order_is_fixed(row: dict[str, Any]) -> None:
    order = QueueOrder(row["weights"], True, random.Random(7))

    assert [list(order.next()) for _ in range(3)] == [row["order"]] * 3


def test_many_queues_are_drawn_in_proportion() -> None:
    """There are more queues than the table of orders holds."""
    weights = {f"q{number}": number for number in range(1, 9)}
    order, draws = QueueOrder(weights, False, random.Random(7)), 20_000

    drawn = [order.next() for _ in range(draws)]

    assert all(sorted(names) == sorted(weights) for names in drawn)
    first = Counter(names[0] for names in drawn)
    for name, weight in weights.items():
        assert first[name] / draws == pytest.approx(weight / sum(weights.values()), abs=TOLERANCE)


def test_one_queue_needs_no_random_draw() -> None:
    order = QueueOrder({"only": 5}, False, random.Random(7))

    assert order.next() is order.next()
    assert tuple(order.next()) == ("only",)
