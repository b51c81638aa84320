"""Nothing here is in a hurry, but for what a test says itself."""

import pytest


@pytest.fixture(autouse=True)
def uses_long_connect_timeout(long_connect_timeout: None) -> None: ...
