"""Frames between a worker and a process that runs tasks for it."""

from taskq_core.worker.task_process import frames


def test_frames_may_arrive_in_pieces() -> None:
    sent = frames.encode(frames.TASK, b"{}") + frames.encode(frames.RESULT) + frames.encode(frames.MESSAGE, b"m" * 300)
    found = frames.Frames()

    whole = [frame for start in range(0, len(sent), 7) for frame in found.feed(sent[start : start + 7])]

    assert whole == [(frames.TASK, b"{}"), (frames.RESULT, b""), (frames.MESSAGE, b"m" * 300)]
