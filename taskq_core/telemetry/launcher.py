"""Let processes that this one starts be instrumented as this one was.

OpenTelemetry's launcher (`opentelemetry-instrument`) works by a folder in front of `PYTHONPATH`, which it takes out
again once this process is instrumented.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_FOLDER = ("opentelemetry", "instrumentation", "auto_instrumentation")


def launched(environ: Mapping[str, str], path: Sequence[str] = ()) -> dict[str, str]:
    """Return an environment for a process to be started.

    Args:
        environ: The environment so far.
        path: Where the process looks for modules, in place of the `PYTHONPATH` of that environment; empty leaves it.
    """
    folders = list(path) or [each for each in environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    launcher = _launcher()
    if launcher is not None and launcher not in folders:
        folders.insert(0, launcher)
    return {**environ, "PYTHONPATH": os.pathsep.join(folders)} if folders else dict(environ)


def _launcher() -> str | None:
    """Return the folder of the launcher that has instrumented this process, None if none has."""
    file = getattr(sys.modules.get("sitecustomize"), "__file__", None)
    if file is None:
        return None
    folder = Path(file).parent
    return str(folder) if folder.parts[-3:] == _FOLDER else None
