"""Change the wall clock of a single process, such as a server, while it runs.

A small library, built with the machine's C compiler and loaded before the C library, adds a number of seconds to the
wall clock. The number is in a file. The monotonic clock is not changed.
"""

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TEST_WALL_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED) offset_s = found;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int status = (int)syscall(SYS_clock_gettime, which, now);
    int is_wall = which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE;
    if (status == 0 && offset_s && is_wall) now->tv_sec += *offset_s;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (result) *result = exact.tv_sec;
    return exact.tv_sec;
}
"""


class WallClock:
    """A wall clock that tests can change, available while its context is open.

    Attributes:
        library: Path of the library, for LD_PRELOAD of the process.
        file: Path of the file, for TEST_WALL_CLOCK of the process.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="taskq-clock-"))
        self.library = self._folder / "clock.so"
        self.file = self._folder / "offset"

    @staticmethod
    def is_possible() -> bool:
        """Whether the library can be built and loaded on this machine."""
        return sys.platform == "linux" and shutil.which("cc") is not None

    def __enter__(self) -> Self:
        self._offset_s = 0
        self.move(0)
        source = self._folder / "clock.c"
        source.write_text(_SOURCE, encoding="ascii")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(self.library), str(source)], check=True)
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self._folder)

    def move(self, seconds: int) -> None:
        """Change the clock by some whole seconds at once."""
        self._offset_s += seconds
        data = struct.pack("=q", self._offset_s)
        if not self.file.exists():
            self.file.write_bytes(data)
            return
        with self.file.open("r+b") as file:  # write in place, because the process has mapped the file
            file.write(data)
