"""A process that runs plain functions for a worker: what it is told, what it answers, and what it does.

The worker's side of it is `taskq_core.worker.processes`. Tasks reach it as the bytes of their messages, results leave
it as JSON, errors as the name of their class and their text: nothing is pickled.
"""
