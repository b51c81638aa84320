"""Requests to Redis as values: script or command, keys, arguments, and how to read the reply. Without I/O.

Each function of these modules returns an `Operation`: a script (or a plain command) with its keys and arguments, a
reader that turns the reply into a typed value, and whether it may be sent again when the reply was lost. "The answer"
in a docstring is this typed value. The runners in `sync` and `aio` send the request and return the answer.

A script recognizes a repeated enqueue by the receipt of its caller's last call, and a repeated dequeue by its call
number. Every other repeatable request has no further effect when it is carried out twice.
"""
