"""Tests of this folder use a long connect timeout unless they set another one."""

import pytest


@pytest.fixture(autouse=True)
def uses_long_connect_timeout(long_connect_timeout: None) -> None: ...
