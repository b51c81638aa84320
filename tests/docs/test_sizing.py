"""The table of bytes per task says what is measured."""

import logging
import runpy
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.pages import ROOT, table

pytestmark = pytest.mark.redis

SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "bytes_per_task.py"))
PAGE = "how-to/set-up-redis.md"


@pytest.fixture
def quiet() -> Iterator[None]:
    """Tasks fail on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_a_task_takes_as_many_bytes_as_the_page_says(quiet: None) -> None:
    """The test allows a quarter more or less, because releases of Redis differ and it measures few tasks."""
    rows = table(PAGE, "Bytes of a task")
    for kind, size in (("pending", "1 KiB"), ("archived", "100 B"), ("completed", "100 B")):
        column = list(SCRIPT["SIZES"]).index(size)
        said = int(rows[kind][column].replace(",", ""))

        measured = await SCRIPT["measure"](SCRIPT["KINDS"][kind], SCRIPT["SIZES"][size], 400)

        assert 0.75 * said < measured < 1.25 * said, (kind, size)
