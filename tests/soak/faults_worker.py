"""Faults of workers and schedulers: killed, frozen, stopped, blocked. For the numbers see `faults`."""

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
"""A busy worker acknowledges tasks mostly with this script, which also takes new tasks; otherwise with `settle`."""
RECOVER = load("recover").sha.encode()
SIGNAL = load("signal").sha.encode()
LATE_S = 20.0
"""Additional seconds that a recovery may take because of other faults."""
BURST = 240
"""Number of quick tasks that keep all workers busy for several requests."""
AGAIN_S = 6.0
"""Seconds within which recovered tasks have run again."""


def killed(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """1: SIGKILL while tasks run."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    yield draw.uniform(0.0, fault.lasts_s / 2)
    stage.kill(place, back_after_s=draw.uniform(0.5, 2.5))
    yield fault.lasts_s / 2
    stage.give_back(place)


def killed_at_each_step(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """2: SIGKILL a worker directly after it sent an acknowledgement, which does or does not arrive.

    In two of four variants, the request that acknowledges tasks also takes new ones.
    """
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    is_turn = (fault.variant // 2) % 2 == 0
    intercepted = place.relay.intercepted_words.copy()
    held = place.relay.hold_request(*(SETTLE_AND_DEQUEUE,) if is_turn else (SETTLE, SETTLE_AND_DEQUEUE))
    stage.held.append(held)
    for count in range(100):
        if held.arrived.is_set():
            break
        if is_turn and count % 20 == 0:
            _burst(stage)
        yield 0.05
    stage.expect(held.arrived.is_set(), "fault 2: the worker settled nothing within 5 s")
    _record_settlements(stage, place, intercepted)
    if fault.variant % 2:
        held.release()  # the acknowledgement arrives, and the worker dies before it reads the response
        stage.kill(place)
    else:
        place.relay.cut()  # the acknowledgement never arrives
        stage.kill(place)
        held.release()
    yield 2.0
    stage.give_back(place)


def zombie(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """3: freeze a worker for longer than its lease, then let it continue."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    # Some of these tasks run on the frozen worker, and take long enough to overlap with their second run elsewhere.
    for _ in range(4 * stage.profile.workers):
        stage.enqueue(program.along.s(stage.slot(), round(draw.uniform(3.0, 5.0), 2)))
        yield 0.0  # an enqueue blocks while Redis is unavailable; let the fault continue that makes it available
    yield 0.3
    stage.freeze(place)
    yield fault.lasts_s - 0.3
    stage.thaw(place)
    stage.give_back(place)


def late_recoverer(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """4: hold a recoverer's request until another recoverer has taken the tasks back and they have run again."""
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    while not stage.takes_writes():
        yield 0.2  # without writes the worker gets no tasks that could be recovered
    for _ in range(2 * stage.profile.concurrency):
        stage.enqueue(program.along.s(stage.slot(), round(draw.uniform(2.0, 3.0), 2)))
        yield 0.0
    yield 0.5
    stage.kill(place)
    # Also hold the requests of the killed worker's place: the worker that replaces it may be the first to recover.
    held = {each.name: each.relay.hold_request(RECOVER) for each in stage.workers}
    stage.held += held.values()
    deadline = time.monotonic() + stage.profile.leases.takeover_s + LATE_S
    while not any(each.arrived.is_set() for each in held.values()) and time.monotonic() < deadline:
        yield 0.02
    first = next((name for name, each in held.items() if each.arrived.is_set()), None)
    stage.ledger.write("held", what="recover", place=first)
    stage.expect(first is not None, "fault 4: no worker recovered a task")
    for name, each in held.items():
        if name != first:
            each.release()
    yield AGAIN_S
    if first is not None:
        held[first].release()
    stage.give_back(place)


def stopped(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """5: SIGTERM a worker that runs short tasks. It must finish them and exit with 0."""
    yield from _terminated(stage, fault, expects="short")


def stopped_with_long_tasks(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """6: SIGTERM a worker that runs tasks longer than its shutdown grace. It must return them to their queue."""
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
    """7: send a worker several signals, some while it starts."""
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
    place.send(signal.SIGTERM)  # possibly before the worker has connected
    yield 2.0
    stage.give_back(place)


def rolling_deploy(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """8: stop and restart all workers, one after the other."""
    for _ in range(len(stage.workers)):
        yield from _terminated(stage, fault, expects="short")


def poisoned(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """9: enqueue tasks that kill their worker's process at each attempt."""
    draw = random.Random(fault.seed)
    for how in draw.sample(("exit", "abort", "segfault"), 2):
        stage.enqueue(program.poison.s(how), failures=2, hopeless=True, slot=None)
        yield fault.lasts_s / 2


def lost_acknowledgement(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """13: lose requests that settle tasks, alone or together with a dequeue, or lose the responses.

    Responses to signals are lost as well.
    """
    draw = random.Random(fault.seed)
    place = stage.take("worker", draw)
    intercepted = place.relay.intercepted_words.copy()
    for count in range(max(2, int(fault.lasts_s))):
        place.relay.drop_reply_to(SIGNAL)
        for word in (SETTLE, SETTLE_AND_DEQUEUE):
            if (count + fault.variant) % 2:
                place.relay.drop_reply_to(word)
            else:
                place.relay.drop_request(word)
        _burst(stage)
        yield 1.0
    for _ in range(100):  # another fault may have made Redis unavailable
        if _settlements(place, intercepted):
            break
        yield 0.2
    stage.expect(bool(_settlements(place, intercepted)), f"fault 13: {place.name} acknowledged nothing")
    _record_settlements(stage, place, intercepted)
    place.relay.forward()
    stage.give_back(place)


def blocked_loop(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """14: block the event loop of a worker for longer than a lease."""
    stage.enqueue(program.blocking.s(stage.slot(), stage.profile.leases.lease + 2.0))
    yield fault.lasts_s


def stuck_in_c(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """12: run a plain function that stays in one C call past its timeout. Other tasks must not be affected."""
    stuck = program.stubborn.using(timeout=1, max_retry=0).s(stage.slot(), fault.lasts_s)
    stage.enqueue(stuck, failures=1, hopeless=True)
    yield fault.lasts_s


def scheduler_lost(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """42: kill the leading scheduler or freeze it past its lease. The other must take over without a second firing."""
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
    """Enqueue so many tasks that each worker sends several requests that settle tasks and take new ones."""
    stage.enqueue_together([program.aquick.s(stage.slot()) for _ in range(BURST)])


def _settlements(place: Place, before: Counter[bytes]) -> Counter[bytes]:
    """Return how many settle requests of each kind the relay has intercepted since `before`."""
    intercepted = place.relay.intercepted_words - before
    return Counter({word: intercepted[word] for word in (SETTLE, SETTLE_AND_DEQUEUE) if intercepted[word]})


def _record_settlements(stage: Stage, place: Place, before: Counter[bytes]) -> None:
    intercepted = _settlements(place, before)
    stage.ledger.write(
        "intercepted", place=place.name, settle=intercepted[SETTLE], settle_and_dequeue=intercepted[SETTLE_AND_DEQUEUE]
    )


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
    stage.expect(limit_s > 0, f"{place.name} had not exited 20 s after its shutdown grace")
    place.wanted = True
    yield 1.0
    stage.give_back(place)
