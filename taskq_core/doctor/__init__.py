"""Find problems of Redis and its queues, and say what to do about each.

`reading` reads the facts, and `rules` decides: pure functions from facts to findings. Neither changes anything.
`repair` lists the possible repairs, makes them, and lists what it cannot repair. `probing` only checks whether tasks
can be enqueued and run.
"""
