"""Find problems of Redis and its queues, and say what to do about each.

The module `reading` reads facts from Redis. The pure functions in `rules` derive findings from the facts. Both change
nothing in Redis. `repair` lists the possible repairs, makes them, and lists what it cannot repair. `probing` only
checks whether tasks can be enqueued and run.
"""
