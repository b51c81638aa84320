"""Nothing here is in a hurry, but for what a test says itself."""

import pytest


@pytest.fixture(autouse=True)
def not_in_a_hurry(unhurried: None) -> None: ...
