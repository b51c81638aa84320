"""Requests to Redis as values: script or command, keys, arguments, and how to read the reply. Without I/O.

Each function of these modules returns an `Operation`: a script (or a plain command) with its keys and arguments, a
reader that turns the reply into a typed value, and whether it may be sent again when the reply was lost. The runners in
`sync` and `aio` only send it. A repeat is safe because the script recognises it: an enqueue by the receipt of its
caller's last call, a dequeue by the number of the call, everything else because doing it twice changes nothing more.

`now_ns` replaces Redis's clock in tests and is None in production.
"""
