"""The catalogue of faults: a number and what it does. Each is a generator that yields the seconds until it goes on."""

from tests.soak import faults_load, faults_network, faults_redis, faults_topology, faults_worker
from tests.soak.damage import damaged
from tests.soak.stage import Fault

FAULTS: dict[int, Fault] = {
    1: faults_worker.killed,
    2: faults_worker.killed_at_each_step,
    3: faults_worker.zombie,
    4: faults_worker.late_recoverer,
    5: faults_worker.stopped,
    6: faults_worker.stopped_with_long_tasks,
    7: faults_worker.signal_storm,
    8: faults_worker.rolling_deploy,
    9: faults_worker.poisoned,
    12: faults_worker.stuck_in_c,
    13: faults_worker.lost_acknowledgement,
    14: faults_worker.blocked_loop,
    19: faults_redis.restarted,
    22: faults_redis.connections_killed,
    23: faults_redis.frozen,
    24: faults_redis.full,
    26: faults_redis.scripts_flushed,
    27: faults_redis.refusing,
    28: faults_topology.sentinel_failover,
    30: faults_topology.cluster_change,
    31: damaged,
    34: faults_network.half_open,
    35: faults_network.enqueue_unanswered,
    36: faults_network.slow,
    37: faults_network.flapping,
    38: faults_network.cut_off,
    42: faults_worker.scheduler_lost,
    43: faults_load.due_at_once,
}


NAMES: dict[int, str] = {
    1: "worker killed",
    2: "worker killed at its acknowledgement",
    3: "worker frozen past its lease",
    4: "recoverer's find delivered late",
    5: "worker told to stop",
    6: "worker told to stop, long tasks",
    7: "signal storm",
    8: "rolling deploy",
    9: "poison",
    12: "function stuck in C",
    13: "acknowledgement lost",
    14: "event loop blocked",
    19: "Redis killed",
    22: "connections killed",
    23: "Redis frozen",
    24: "Redis full",
    26: "scripts flushed",
    27: "Redis refuses",
    28: "failover of a Sentinel's primary",
    30: "cluster: slot moves, or primary killed",
    31: "keys damaged",
    34: "connection half open",
    35: "enqueue unanswered",
    36: "network slow",
    37: "network flaps",
    38: "worker cut off",
    42: "scheduler lost",
    43: "thousands due at once",
}
"""What each is called in schedules and pictures."""
