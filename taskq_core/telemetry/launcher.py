"""Instrument child processes if OpenTelemetry's launcher has instrumented this process.

The launcher (`opentelemetry-instrument`) puts a folder in front of `PYTHONPATH`. The launcher removes the folder after
it has instrumented this process, so the folder must be added again for child processes.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_FOLDER = ("opentelemetry", "instrumentation", "auto_instrumentation")


def launched(environ: Mapping[str, str], path: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment for a child process, which instruments it like this process.

    Args:
        environ: The environment without the launcher.
        path: Module search path of the child process. It replaces the `PYTHONPATH` of `environ`, unless it is empty.
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
