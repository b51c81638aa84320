import json
from pathlib import Path
from typing import Any

import pytest

from taskq_core.wire.states import TaskState
from tests.rows import rows

ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "keys.json").read_text(encoding="utf-8")
)["states"]


def test_words_and_numbers_are_gos() -> None:
    assert {state.number: str(state) for state in TaskState} == {row["number"]: row["word"] for row in ROWS}
    assert all(TaskState.from_number(row["number"]) == row["word"] for row in ROWS)


@rows("number", [0, 8, -1])
def test_an_unknown_number_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"no task state has the number {number}"):
        TaskState.from_number(number)
