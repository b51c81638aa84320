"""Faults of the network between one process and Redis. For the numbers see `faults`."""

import random
import time
from collections.abc import Iterator

from taskq_core.broker.scripts import load
from tests.relay import Direction, HeldRequest
from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage

ENQUEUE = load("enqueue").sha.encode()
LATE_S = 2.5
"""Delay of a late enqueue request in seconds. By then its tasks have run, and its client has enqueued others."""
STUMBLING = 20
"""Tasks whose acknowledgements are late. Each of the four workers runs about a quarter of their retries."""
COPIES = 6
"""Settle requests that are copied for each worker."""
SETTLED_S = 3.0
"""Seconds after which a worker without network must have slowed down to one attempt a second per connection."""


def half_open(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """34: hold or discard the bytes of one direction. The connection stays open."""
    draw = random.Random(fault.seed)
    direction: Direction = draw.choice(("requests", "replies"))
    place = stage.take(draw.choice(("worker", "worker", "producer")), draw)
    over = stage.outage(f"{direction} held", place)
    if draw.random() < 0.5:
        place.relay.hold(direction)
    else:
        place.relay.swallow(direction)
    yield fault.lasts_s
    place.relay.forward()
    over()
    stage.give_back(place)


def enqueue_unanswered(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """35: discard the responses to enqueue requests, and close their connections."""
    draw = random.Random(fault.seed)
    place = stage.take("producer", draw)
    before = place.relay.intercepted
    for _ in range(int(fault.lasts_s / 0.2)):
        place.relay.drop_reply_to(ENQUEUE)
        yield 0.2
    for _ in range(100):  # another fault may have made Redis unavailable
        if place.relay.intercepted > before:
            break
        yield 0.2
    stage.expect(place.relay.intercepted > before, f"fault 35: {place.name} enqueued nothing")
    place.relay.forward()
    stage.give_back(place)


def slow(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """36: delay all bytes by 20 ms in each direction, and send them in pieces of 700 bytes."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    place.relay.delay("replies", 0.02)
    place.relay.delay("requests", 0.02)
    place.relay.trickle(700)
    yield fault.lasts_s
    place.relay.forward()
    stage.give_back(place)


def flapping(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """37: alternate between one second without network and one second with it."""
    place = stage.take("worker", random.Random(fault.seed))
    for _ in range(int(fault.lasts_s / 2)):
        over = stage.outage("cut off", place)
        place.relay.refuse()
        yield 1.0
        place.relay.forward()
        over()
        yield 1.0
    stage.give_back(place)


def cut_off(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """38: cut one worker off for longer than its leases last, while it runs tasks."""
    place = stage.take("worker", random.Random(fault.seed))
    connections = place.relay.most_open  # the current number may be lower because of another fault
    over = stage.outage("cut off", place)
    if fault.variant % 2:
        place.relay.refuse()
    else:
        place.relay.hold("requests", "replies")
    yield SETTLED_S
    before, since = place.relay.connections, time.monotonic()
    yield fault.lasts_s - SETTLED_S
    rest_s = time.monotonic() - since  # longer than planned if another fault has delayed the conductor
    attempts = place.relay.connections - before
    place.relay.forward()
    stage.ledger.write("attempts", place=place.name, attempts=attempts, connections=connections, seconds=rest_s)
    stage.expect(
        attempts <= connections * rest_s,
        f"fault 38: {place.name} tried {attempts} times in {rest_s:.0f} s to open {connections} connections",
    )
    over()
    stage.give_back(place)


def late_settlement(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """70: hold and repeat, or copy, acknowledgements. They arrive while the worker runs the same task again."""
    draw = random.Random(fault.seed)
    word = program.stumbling.name.encode()  # is part of the message that the settlement of a failed run stores
    delivered = 0
    for _ in range(3):  # another fault may have prevented the second runs
        while not stage.takes_writes():
            yield 0.2
        late: list[HeldRequest] = []
        for place in stage.workers:
            late.append(place.relay.hold_request(word, hang_up=True))
            late += [place.relay.copy_request(word) for _ in range(COPIES)]
        stage.held += late
        tasks = [program.stumbling.s(stage.slot(), round(draw.uniform(3.0, 4.0), 2)) for _ in range(STUMBLING)]
        ids = stage.enqueue_together(tasks)
        for _ in range(int(fault.lasts_s / 0.1)):
            yield 0.1
            for each in late:
                if not each.is_sent and any(_runs_again(stage, task_id, each) for task_id in ids):
                    each.release()
                    delivered += 1
        for each in late:
            each.release()
        if delivered:
            break
    stage.ledger.write("held", what="settle", delivered=delivered)
    stage.expect(delivered > 0, "fault 70: no worker ran a task again whose acknowledgement was late")


def _runs_again(stage: Stage, task_id: str, late: HeldRequest) -> bool:
    """Whether the worker that sent a settle request is now running the task again."""
    if task_id.encode() not in late.data:
        return False
    owner = stage.command("HGET", stage.keys("default").task(task_id), "taskq_owner")
    return bool(owner) and owner.partition(b".")[0] in late.data


def late_enqueues(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """71: hold enqueue requests, which clients then repeat, or copy them. Held requests and copies arrive later."""
    place = stage.take("producer", random.Random(fault.seed))
    late: list[HeldRequest] = []
    for count in range(int((fault.lasts_s - LATE_S) / 0.2)):
        late.append(place.relay.copy_request(ENQUEUE) if count % 2 else place.relay.hold_request(ENQUEUE, hang_up=True))
        yield 0.2
    stage.held += late
    yield LATE_S
    for each in late:
        each.release()
    arrived = sum(each.arrived.is_set() for each in late)
    stage.ledger.write("held", what="enqueue", delivered=arrived)
    stage.expect(arrived > 0, f"fault 71: {place.name} enqueued nothing")
    stage.give_back(place)
