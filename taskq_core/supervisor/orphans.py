"""Processes that fall to a supervisor which is the first of its container: what workers that died had started.

The system hands them to the first process, and keeps an entry of each that has ended until that one asks for it. A
container may have only so many.
"""

import contextlib
import os
import sys
from collections.abc import Collection


def fall_to_this_process() -> bool:
    """Whether they fall to this process."""
    return os.getpid() == 1


def reap(own: Collection[int]) -> None:
    """Ask for the end of each child that has ended, but for those of our own, who are asked for elsewhere."""
    if sys.platform != "linux" or not fall_to_this_process():
        return
    with contextlib.suppress(ChildProcessError):  # there is none
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in own:  # it stands before the others until it was asked for
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
