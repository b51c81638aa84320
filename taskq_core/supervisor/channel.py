"""Messages between a supervisor and its worker processes: lines of JSON over a pair of sockets.

When the process on one side ends, even if it was killed, the connection closes and the other side notices this.

From a process                              From the supervisor
  hello    its identity, before it works      stop     stop gracefully, as SIGTERM
  ready    it takes tasks                     abort    stop at once, as a second SIGTERM
  report   its health, every second, and      pause    take no new tasks, as SIGTSTP
           why it must be replaced            retire   a successor works: finish running tasks, then end
  closing  it ends now
  leave    an operator requested a stop
           of all processes

During a rolling restart, a supervisor and its processes may run different releases. So the names in messages, such as
`word` and `wish`, must not change.
"""

import json
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

VARIABLE = "_TASKQ_SUPERVISED"
"""Environment variable with the file descriptor of a process's end of the channel."""
NAME_VARIABLE = "_TASKQ_SUPERVISOR_NAME"
"""Environment variable with the name that the supervisor holds; see `taskq_core.worker.liveness`."""
LONGEST_LINE = 1 << 20
"""Maximum length of a message line, in bytes."""

HELLO, READY, REPORT, CLOSING, LEAVE = "hello", "ready", "report", "closing", "leave"
STOP, ABORT, PAUSE, RETIRE = "stop", "abort", "pause", "retire"


def encode(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Encode a message as a line of JSON."""
    return json.dumps({"word": kind, **fields}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the kind and the fields of a message. The kind of an invalid message is ""."""
    try:
        fields = json.loads(line)
        return str(fields.pop("word")), fields
    except (ValueError, KeyError, AttributeError):
        return "", {}


class Channel:
    """A worker process's end of the channel.

    One thread reads, and any thread may send. Neither blocks if the supervisor hangs.

    Args:
        descriptor: File descriptor of the socket. Child processes do not inherit it.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._socket.set_inheritable(False)
        self._lock = threading.Lock()
        self._unsent = b""

    def send(self, kind: str, *, within_s: float = 0.0, **fields: Any) -> None:
        """Send a message. `receive` notices if the supervisor has ended.

        Args:
            kind: The kind of message.
            within_s: Maximum wait if the supervisor does not read. Remaining bytes are then sent with the next message.
            fields: The content.
        """
        with self._lock:
            self._unsent += encode(kind, fields)
            self._flush(within_s)

    def send_update(self, kind: str, **fields: Any) -> None:
        """Send a status update. Drop it if the supervisor has not read the previous message."""
        with self._lock:
            self._flush(0.0)
            if not self._unsent:
                self._unsent = encode(kind, fields)
                self._flush(0.0)

    def _flush(self, within_s: float) -> None:
        """Send as many waiting bytes as the socket accepts within the time."""
        until = time.monotonic() + within_s
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return
                room = select.poll()  # unlike `select.select`, `poll` accepts file descriptors above 1023
                room.register(self._socket, select.POLLOUT)
                room.poll(left_s * 1000)
            except OSError:  # the supervisor has ended
                self._unsent = b""

    def receive(self) -> Iterator[str]:
        """Yield the kind of each message from the supervisor, until the supervisor ends."""
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
