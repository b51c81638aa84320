"""What a supervisor and its processes tell each other: lines of JSON over a pair of sockets.

The end of a connection tells as much: a supervisor that reads no more knows that the process has ended, and a process
that reads no more knows that its supervisor has, however it was killed.

A process says                            a supervisor says
  hello    who it is, before it works       stop     gracefully, as SIGTERM
  ready    it takes tasks                   abort    at once, as a second SIGTERM
  report   how it is, every second, and     pause    take no new tasks, as SIGTSTP
           why it wants a successor         retire   a successor works: finish what runs, then end
  closing  it ends now
  leave    an operator asked it to stop:
           all processes are to stop
"""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

VARIABLE = "_TASKQ_SUPERVISED"
"""Environment variable with the descriptor of a process's end of the channel."""
LONGEST_LINE = 1 << 20
"""Most bytes of one line."""

HELLO, READY, REPORT, CLOSING, LEAVE = "hello", "ready", "report", "closing", "leave"
STOP, ABORT, PAUSE, RETIRE = "stop", "abort", "pause", "retire"


def encode(word: str, facts: Mapping[str, Any]) -> bytes:
    """Return a line."""
    return json.dumps({"word": word, **facts}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the word of a line and the facts that come with it; an unreadable one is the word ""."""
    try:
        facts = json.loads(line)
        return str(facts.pop("word")), facts
    except (ValueError, KeyError, AttributeError):
        return "", {}


class Channel:
    """A process's end of the channel. One thread hears, others may tell; none waits for a supervisor that stands still.

    Args:
        descriptor: Of the socket. Processes started from here do not inherit it.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._socket.set_inheritable(False)
        self._lock = threading.Lock()
        self._unsent = b""

    def tell(self, word: str, *, within_s: float = 0.0, **facts: Any) -> None:
        """Tell the supervisor. One that is gone hears nothing, and is noticed by `hear`.

        Args:
            word: What is told.
            within_s: Most seconds to wait for a supervisor that does not read. What it has no room for then is kept,
                and sent with what is told next.
            facts: What comes with it.
        """
        with self._lock:
            self._unsent += encode(word, facts)
            self._send(within_s)

    def tell_if_heard(self, word: str, **facts: Any) -> None:
        """Tell the supervisor what is out of date soon: nothing while it does not read what it was told before."""
        with self._lock:
            self._send(0.0)
            if not self._unsent:
                self._unsent = encode(word, facts)
                self._send(0.0)

    def _send(self, within_s: float) -> None:
        """Send what there is room for."""
        until = time.monotonic() + within_s
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return
                room = select.poll()  # takes descriptors of any number
                room.register(self._socket, select.POLLOUT)
                room.poll(left_s * 1000)
            except OSError:  # it is gone
                self._unsent = b""

    def hear(self) -> Iterator[str]:
        """Wait for words and yield them, until the supervisor is gone."""
        rest = b""
        while True:
            try:
                data = self._socket.recv(4096)
            except OSError:
                data = b""
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield decode(line)[0]
