"""A fake Redis in the memory of this process, for tests: fakeredis, which runs the same scripts."""

import importlib.util
from pathlib import Path

from taskq_core.broker.connection import Endpoint
from taskq_core.errors import ConfigurationError

_MISSING = "a store in memory needs fakeredis with Lua: pip install 'taskq-asynq[testing]'"


def memory_endpoint() -> Endpoint:
    """Return the endpoint of a new, empty fake server that only this caller uses.

    Raises:
        ConfigurationError: fakeredis, or the Lua that it needs, is not installed.
    """
    try:
        import fakeredis
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    if importlib.util.find_spec("lupa") is None:  # without lupa, fakeredis fails only at the first script
        raise ConfigurationError(_MISSING)
    return Endpoint(fakeredis.FakeRedis(server=fakeredis.FakeServer()), embedded_folder=Path())
