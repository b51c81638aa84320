"""Faults of workers and schedulers: killed, frozen, stopped, poisoned, an answer lost. Numbers as in `faults`."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

from taskq_core.broker.scripts import load
from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Place, Stage

SETTLE = load("settle").sha.encode()
SETTLE_AND_DEQUEUE = load("settle_and_dequeue").sha.encode()
"""A worker acknowledges with this one in most turns while it has much to do, with the other one else."""
RECOVER = load("recover").sha.encode()
LATE_S = 20.0
"""Seconds that recoveries may take longer where other faults stand in their way."""
BURST = 240
"""Quick tasks, of which each worker gets some turns' worth."""
AGAIN_S = 6.0
"""Seconds in which tasks that were taken back have run again."""


def killed(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """1: SIGKILL while tasks run."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    yield draw.uniform(0.0, fault.lasts_s / 2)
    stage.kill(place, back_after_s=draw.uniform(0.5, 2.5))
    yield fault.lasts_s / 2
    stage.give_back(place)


def killed_at_each_step(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """2: SIGKILL when the worker has just sent an acknowledgement that is kept from Redis, or one that has arrived.

    Two of four in a turn that takes other tasks as well.
    """
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    is_turn = (fault.variant // 2) % 2 == 0
    met = place.relay.met.copy()
    held = place.relay.hold_request(*(SETTLE_AND_DEQUEUE,) if is_turn else (SETTLE, SETTLE_AND_DEQUEUE))
    stage.held.append(held)
    for count in range(100):
        if held.came.is_set():
            break
        if is_turn and count % 20 == 0:
            _burst(stage)
        yield 0.05
    stage.expect(held.came.is_set(), "fault 2: the worker settled nothing within 5 s")
    _tell_met(stage, place, met)
    if fault.variant % 2:
        held.let_go()  # it arrives, and the worker does not live to see the answer
        stage.kill(place)
    else:
        place.relay.cut()  # it never arrives
        stage.kill(place)
        held.let_go()
    yield 2.0
    stage.give_back(place)


def zombie(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """3: stopped past the lease, then continued."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    for _ in range(
        4 * stage.profile.workers
    ):  # some of them where it is frozen, and long enough to meet their second run
        stage.enqueue(program.along.s(stage.slot(), round(draw.uniform(3.0, 5.0), 2)))
        yield 0.0  # each takes a while where Redis is away, and another fault may be what ends that
    yield 0.3
    stage.freeze(place)
    yield fault.lasts_s - 0.3
    stage.thaw(place)
    stage.give_back(place)


def late_recoverer(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """4: what a recoverer found is kept on its way until another has taken the tasks back and they have run."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    while not stage.takes_writes():
        yield 0.2  # else the worker may hold nothing that could be taken back
    for _ in range(2 * stage.profile.concurrency):
        stage.enqueue(program.along.s(stage.slot(), round(draw.uniform(2.0, 3.0), 2)))
        yield 0.0
    yield 0.5
    stage.kill(place)
    # That of the killed one as well: the worker that starts in its place may be the first to look.
    held = {each.name: each.relay.hold_request(RECOVER) for each in stage.workers}
    stage.held += held.values()
    deadline = time.monotonic() + stage.profile.leases.takeover_s + LATE_S
    while not any(each.came.is_set() for each in held.values()) and time.monotonic() < deadline:
        yield 0.02
    first = next((name for name, each in held.items() if each.came.is_set()), None)
    stage.ledger.write("held", what="recover", place=first)
    stage.expect(first is not None, "fault 4: nobody took a task back")
    for name, each in held.items():
        if name != first:
            each.let_go()
    yield AGAIN_S
    if first is not None:
        held[first].let_go()
    stage.give_back(place)


def stopped(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """5: SIGTERM while it runs short tasks. It finishes them and exits with 0."""
    yield from _terminated(stage, fault, expects="short")


def stopped_with_long_tasks(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """6: SIGTERM while it runs tasks longer than its grace. They go back to the head of their queue."""
    draw = random.Random(fault.seed)
    leases = stage.profile.leases
    seconds = max(stage.profile.shutdown_grace, leases.lease + leases.grace) + 3.0
    for count in range(2 * stage.profile.workers):
        task = (program.long, program.along, program.long, program.stubborn)[count % 4]
        stage.enqueue(task.s(stage.slot(), round(seconds + draw.random(), 2)))
        yield 0.0
    yield 0.7
    yield from _terminated(stage, fault, expects="long")


def signal_storm(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """7: signals again and again, some while it starts."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    place.wanted = False
    pid = place.process.pid if place.process is not None else 0
    stage.ledger.write("terminated", place=place.name, process=pid, expects="storm")
    for _ in range(5):
        place.send(draw.choice((signal.SIGTERM, signal.SIGINT)))
        yield 0.1
    yield 1.0
    place.wanted = True
    for _ in range(40):
        if place.process is not None and place.process.pid != pid:
            break
        yield 0.1
    yield draw.uniform(0.05, 1.0)
    if place.process is not None:
        stage.ledger.write("terminated", place=place.name, process=place.pid, expects="storm")
    place.send(signal.SIGTERM)  # perhaps before it can have connected
    yield 2.0
    stage.give_back(place)


def rolling_deploy(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """8: every worker is stopped and started again, one after the other."""
    for _ in range(len(stage.workers)):
        yield from _terminated(stage, fault, expects="short")


def poisoned(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """9: tasks that take their worker's process along, each time."""
    draw = random.Random(fault.seed)
    for how in draw.sample(("exit", "abort", "segfault"), 2):
        stage.enqueue(program.poison.s(how), failures=2, hopeless=True, slot=None)
        yield fault.lasts_s / 2


def lost_acknowledgement(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """13: requests that settle tasks, alone or in one with a dequeue, are lost on their way, or their answers are."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    before, met = place.relay.trapped, place.relay.met.copy()
    for count in range(max(2, int(fault.lasts_s))):
        for word in (SETTLE, SETTLE_AND_DEQUEUE):
            if (count + fault.variant) % 2:
                place.relay.drop_reply_to(word)
            else:
                place.relay.drop_request(word)
        _burst(stage)
        yield 1.0
    for _ in range(100):  # Redis may not be there to acknowledge anything just now
        if place.relay.trapped > before:
            break
        yield 0.2
    stage.expect(place.relay.trapped > before, f"fault 13: {place.name} acknowledged nothing")
    _tell_met(stage, place, met)
    place.relay.forward()
    stage.give_back(place)


def blocked_loop(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """14: a coroutine blocks the event loop of its worker for longer than a lease."""
    stage.enqueue(program.blocking.s(stage.slot(), stage.profile.leases.lease + 2.0))
    yield fault.lasts_s


def stuck_in_c(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """12: a plain function sits in one call past its timeout. Nobody else notices."""
    stuck = program.stubborn.using(timeout=1, max_retry=0).s(stage.slot(), fault.lasts_s)
    stage.enqueue(stuck, failures=1, hopeless=True)
    yield fault.lasts_s


def scheduler_lost(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """42: the scheduler that leads is killed, or frozen past its lease. The other takes over, nothing comes twice."""
    draw = random.Random(fault.seed)
    place = stage.leading_scheduler(draw)
    if fault.variant % 2:
        stage.kill(place, back_after_s=2.0)
        yield fault.lasts_s
    else:
        stage.freeze(place)
        yield fault.lasts_s
        stage.thaw(place)
    stage.give_back(place)


def _burst(stage: Stage) -> None:
    """Enqueue so many tasks that all workers go on for some turns in which they settle several and take others."""
    stage.enqueue_together([program.aquick.s(stage.slot()) for _ in range(BURST)])


def _tell_met(stage: Stage, place: Place, before: Counter[bytes]) -> None:
    """Note which requests that settle a fault has met since."""
    met = place.relay.met - before
    stage.ledger.write("met", place=place.name, settle=met[SETTLE], settle_and_dequeue=met[SETTLE_AND_DEQUEUE])


def _terminated(stage: Stage, fault: PlannedFault, *, expects: str) -> Iterator[float]:
    place = stage.take("worker", random.Random(fault.seed))
    pid = place.process.pid if place.process is not None else 0
    if not place.is_ready:
        stage.give_back(place)
        return
    stage.ledger.write("terminated", place=place.name, process=pid, expects=expects)
    place.wanted = False
    place.send(signal.SIGTERM)
    limit_s = stage.profile.shutdown_grace + 20.0
    while place.process is not None and place.process.pid == pid and limit_s > 0:
        yield 0.1
        limit_s -= 0.1
    stage.expect(limit_s > 0, f"{place.name} had not exited 20 s after its grace")
    place.wanted = True
    yield 1.0
    stage.give_back(place)
