"""Count the cores that this process may use, which CPU affinity and control groups (containers) limit.

The quota of a control group is in `cpu.max`, or in version 1 in `cpu.cfs_quota_us` and `cpu.cfs_period_us`. Parent
groups limit their children.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of usable cores, at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows have no `sched_getaffinity`
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_granted()]))


def _granted() -> Iterator[int]:
    """Yield the CPU quota of each control group of this process, as a number of cores, rounded up."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _GROUPS / "cpu" if controllers else _GROUPS
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root):
                yield from _granted_by(group)


def _granted_by(group: Path) -> Iterator[int]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if quota != "max" and int(quota) > 0:  # cgroups version 1 uses -1 for "unlimited", version 2 "max"
                yield math.ceil(int(quota) / int(period))
        except (OSError, ValueError):
            continue
