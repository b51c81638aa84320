"""The private redis-server for development that an `embedded://` URL opens.

It is a real redis-server. Several processes share the server of a folder, and it stops when the last of them has
closed it. Its data stays in the folder. It listens on a unix socket that only this user can reach, and on no TCP port.
It needs Linux or macOS.

A small process, the guardian, starts and stops the server. Four empty files in the folder are locked with `flock`. The
kernel releases a lock when the last process that holds it ends for any reason, so no pid file can be stale::

    start.lock     exclusive   a process while it opens the server
    users.lock     shared      every process that uses the server
                   exclusive   the guardian, once no user is left
    guardian.lock  exclusive   the guardian, until it ends
    server.lock    exclusive   the guardian and its server, which inherits the lock: held until both have ended

    user:      start.lock -> users.lock -> is there a guardian, and does the server answer PING?  yes: done
                                           no: spawn a guardian, wait until its server answers
    guardian:  guardian.lock -> server.lock -> start the server -> wait for users.lock
               -> SIGTERM to the server -> wait until it has ended -> exit

When a process dies:

- A user: its lock is released at once. If it was the last user, the server is stopped.
- The guardian: on Linux, the kernel sends SIGTERM to the server. The guardian of the next user waits until the old
  server has ended and released `server.lock`, and starts a new one. On other systems it first asks the old server to
  shut down. Processes that used the old server reach the new one at the same socket.
- The server: its guardian starts it again at once, unless it exits by itself within a second of its start. Writes that
  a killed server had acknowledged are in the append-only file, except at most 2 s of writes if the disk is slow.

A process that opens the server while the guardian is stopping it waits for `users.lock`, finds no guardian and spawns
one. A child made by `fork` inherits the open lock file: the server runs until both processes have closed it or ended. A
program started with exec inherits nothing.
"""

from taskq_core.broker.embedded.binary import ServerProgram, find_program, find_redis_server
from taskq_core.broker.embedded.opener import EmbeddedRedis, open_embedded

__all__ = ["EmbeddedRedis", "ServerProgram", "find_program", "find_redis_server", "open_embedded"]
