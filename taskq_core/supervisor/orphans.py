"""Reap the orphans of dead workers, if the supervisor is the first process of a container.

The system makes the first process their parent, and keeps an entry for each until the parent waits for it. The number
of entries is limited.
"""

import contextlib
import os
import sys
from collections.abc import Collection


def is_first_process() -> bool:
    """Return whether this process becomes the parent of orphans."""
    return os.getpid() == 1


def reap(own: Collection[int]) -> None:
    """Wait for each ended child process, except our own, which the supervisor waits for."""
    if sys.platform != "linux" or not is_first_process():
        return
    with contextlib.suppress(ChildProcessError):  # raised if this process has no children
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            # stop: this child of ours hides other ended children until the supervisor has waited for it
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
