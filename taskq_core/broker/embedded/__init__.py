"""The private redis-server for development that an `embedded://` URL opens.

It is a real server. Several processes share the one of a folder; the last one out stops it; its data stays in the
folder. It listens on a unix socket that only this user can reach, and on no TCP port. Needs Linux or macOS.

Four empty files in the folder are locked with `flock`. The kernel frees a lock when the last process that holds it
ends, however it ends, so no pid file can be stale::

    start.lock     exclusive   a process that is opening, until it is done
    users.lock     shared      every user, for life
                   exclusive   the guardian, once no user is left
    guardian.lock  exclusive   the guardian, for life
    server.lock    exclusive   the guardian and, inherited, its server: held as long as either lives

    user:      start.lock -> users.lock -> is a guardian there and does PING answer?  yes: done
                                           no: spawn a guardian, wait until its server answers
    guardian:  guardian.lock -> server.lock -> start the server -> wait for users.lock
               -> SIGTERM to the server -> wait until it is gone -> exit

When a process dies:

- A user: its lock is free at once. If it was the last one, the server is stopped.
- The guardian: the kernel sends the server SIGTERM (Linux). The next opener's guardian waits until `server.lock` is
  free, which also holds for a server that has not ended yet, and starts anew; where the kernel sends nothing it asks
  the orphan to stop. Processes that had the server open reach the new one at the same socket.
- The server: its guardian starts it again at once, unless it ends by itself within a second of its start. Writes that
  a killed server had acknowledged are in the append-only file, except while a slow disk keeps it from writing (at most
  2 s of writes).
- A user that opens while the guardian is stopping the server waits for `users.lock`, finds no guardian and starts anew.

A child made by `fork` inherits the open file and with it the parent's share: the server lives until both have closed it
or ended. A program started by the process (exec) inherits nothing.
"""

from taskq_core.broker.embedded.binary import ServerProgram, find_program, find_redis_server
from taskq_core.broker.embedded.opener import EmbeddedRedis, open_embedded

__all__ = ["EmbeddedRedis", "ServerProgram", "find_program", "find_redis_server", "open_embedded"]
