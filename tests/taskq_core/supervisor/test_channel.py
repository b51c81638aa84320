"""Test status messages to a stopped supervisor (SIGSTOP): sending never blocks, and no message is cut."""

import faulthandler
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core.supervisor import Limits, Member, channel, member
from taskq_core.supervisor.channel import Channel, decode
from taskq_core.worker import WorkerConfig
from tests.taskq_core.worker.conftest import PATIENCE_S, until_blocking

ENOUGH = 2000
"""Reports that are more than a pair of sockets holds."""


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, int]]:
    """A supervisor's end, and the descriptor of its process's."""
    ours, theirs = socket.socketpair()
    made: list[Channel] = []
    initialize = Channel.__init__

    def note(self: Channel, descriptor: int) -> None:
        initialize(self, descriptor)
        made.append(self)

    monkeypatch.setattr(Channel, "__init__", note)
    with ours:
        yield ours, theirs.detach()
    for each in made:
        each._socket.close()


def words_of(ours: socket.socket) -> list[str]:
    """Read all that there is."""
    ours.setblocking(False)
    data = b""
    try:
        while part := ours.recv(65_536):
            data += part
    except BlockingIOError:
        pass
    return [decode(line)[0] for line in data.splitlines()]


def test_unread_reports_block_neither_their_thread_nor_the_watchdog(
    pair: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, descriptor = pair
    armed: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda after_s, **options: armed.append(after_s))
    monkeypatch.setattr(member, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(member, "_START_CHECK_EVERY_S", -1.0)
    config = WorkerConfig(concurrency=1)
    worker: Any = SimpleNamespace(
        status="active", ended_count=0, config=config, report=lambda: (True, {"status": "ready", "queues": "q" * 500})
    )
    process = Member(descriptor, "")
    sending = threading.Thread(target=process._send_reports, args=(worker, Limits(None, None)), daemon=True)
    sending.start()

    until_blocking(lambda: len(armed) > ENOUGH, "the watchdog is armed again and again")
    process._is_over.set()
    sending.join(PATIENCE_S)

    words = words_of(ours)
    assert words[:3] == [channel.REPORT, channel.READY, channel.REPORT], "it is well before it is counted"
    assert len(words) < ENOUGH
    process._channel.send(channel.CLOSING)
    assert words_of(ours)[-1] == channel.CLOSING


def test_a_process_becomes_ready_even_if_it_cannot_check_its_queues(
    pair: tuple[socket.socket, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be away for all: its predecessor would not be replaced for as long."""
    now = 100.0
    monkeypatch.setattr(member, "time", SimpleNamespace(monotonic=lambda: now))
    process = Member(pair[1], "")
    worker: Any = SimpleNamespace(status="starting", report=lambda: (False, {}))

    assert not process._is_ready(worker)
    now += 60
    worker.status = "active"
    assert not process._is_ready(worker)
    now += member.READY_AFTER_S - 0.1
    assert not process._is_ready(worker)
    now += 0.2
    assert process._is_ready(worker)


def test_required_messages_are_kept_until_the_supervisor_reads_again(pair: tuple[socket.socket, int]) -> None:
    ours, descriptor = pair
    process = Channel(descriptor)
    for _ in range(ENOUGH):
        process.send_update(channel.REPORT, body="q" * 500)
    sending = threading.Thread(target=process.send, args=(channel.READY,), kwargs={"within_s": 0.01}, daemon=True)
    sending.start()
    sending.join(PATIENCE_S)
    assert not sending.is_alive(), "it is not waited for any longer"

    words = words_of(ours)
    process.send(channel.CLOSING)
    words += words_of(ours)

    assert [word for word in words if word != channel.REPORT][-2:] == [channel.READY, channel.CLOSING]


def test_an_ended_supervisor_receives_no_message(pair: tuple[socket.socket, int]) -> None:
    ours, descriptor = pair
    process = Channel(descriptor)
    ours.close()

    process.send(channel.CLOSING, within_s=PATIENCE_S)
    process.send_update(channel.REPORT)

    assert list(process.receive()) == []
