"""Reap orphaned child processes of dead workers, if the supervisor is the first process of a container.

The system makes the first process their parent. The system keeps an entry for each ended process until the parent waits
for this process, and the number of entries is limited.
"""

import contextlib
import os
import sys
from collections.abc import Collection


def is_first_process() -> bool:
    """Return whether this is the first process of a container, which becomes the parent of orphaned processes."""
    return os.getpid() == 1


def reap(own: Collection[int]) -> None:
    """Reap each ended child process, except the worker processes, for which the supervisor itself waits."""
    if sys.platform != "linux" or not is_first_process():
        return
    with contextlib.suppress(ChildProcessError):  # this process has no children
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            # Stop, because `waitid` finds no other ended child before the supervisor has waited for its own worker
            # process.
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
