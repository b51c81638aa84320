"""The table of bytes per task says what is measured."""

import logging
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import table

pytestmark = pytest.mark.redis

SCRIPT: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bytes_per_task.py"))
PAGE = "how-to/size-redis.md"


@pytest.fixture
def quiet() -> Iterator[None]:
    """Tasks fail on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_the_page_has_every_kind_and_size() -> None:
    rows = table(PAGE, "Bytes of a task")

    assert list(rows) == list(SCRIPT["KINDS"])
    assert {len(cells) for cells in rows.values()} == {len(SCRIPT["SIZES"])}


@pytest.mark.parametrize(("kind", "size"), [("pending", "1 KiB"), ("archived", "100 B"), ("completed", "100 B")])
async def test_what_the_page_says_is_measured(kind: str, size: str, quiet: None) -> None:
    """Within a quarter: releases of Redis differ, and few tasks are measured here."""
    column = list(SCRIPT["SIZES"]).index(size)
    said = int(table(PAGE, "Bytes of a task")[kind][column].replace(",", ""))

    measured = await SCRIPT["measure"](SCRIPT["KINDS"][kind], SCRIPT["SIZES"][size], 400)

    assert 0.75 * said < measured < 1.25 * said
