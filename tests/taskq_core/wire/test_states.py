import json
from pathlib import Path
from typing import Any

from taskq_core.wire.states import TaskState

ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "keys.json").read_text(encoding="utf-8")
)["states"]


def test_state_names_match_go() -> None:
    assert [str(state) for state in TaskState] == [row["word"] for row in sorted(ROWS, key=lambda row: row["number"])]
