"""The version of the installed package."""

import re
from importlib.metadata import distribution


def installed_version() -> str:
    """Return the version of the installed distribution of taskq.

    `importlib.metadata.version()` returns the same, but imports Python's e-mail package, which takes 0.7 MB in each
    worker.

    Raises:
        PackageNotFoundError: taskq runs from a source tree and is not installed.
    """
    installed = distribution("taskq-asynq")
    found = re.search(r"^Version: (.+)$", installed.read_text("METADATA") or "", re.MULTILINE)
    return found[1] if found else installed.version
