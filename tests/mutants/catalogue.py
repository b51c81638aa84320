"""The mutants: one small error each in a script or in what taskq stores and sends, and the tests that must detect it.

A mutant is an error that a person could make. It changes one place in one file, and the program still runs.
When you move or change code that a mutant names, change the mutant with it.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """A deliberate error in the code.

    Attributes:
        name: The error, as a sentence.
        file: The file to change, relative to the root of the repository.
        old: The text to replace. It occurs exactly once in the file.
        new: The text that replaces it.
        tests: The test file that must detect the error.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


_CATALOGUE: dict[str, dict[str, dict[str, tuple[str, str]]]] = {
    "tests/conformance/test_enqueue.py": {
        "taskq_core/broker/lua/_receipt.lua": {
            "a repeated enqueue stores its tasks again": ("if last == call then", "if false then"),
            "an enqueue that arrives after a later enqueue of the same caller is executed": (
                "elseif last and tonumber(last) > tonumber(call) then",
                "elseif false then",
            ),
        },
        "taskq_core/broker/lua/_late.lua": {
            "a request that arrives after its deadline is executed": (
                "if left_ms < 0 or left_ms > 110000 then",
                "if false then",
            ),
        },
        "taskq_core/broker/lua/enqueue.lua": {
            "a full queue accepts another task": ("elseif room and stored >= room then", "elseif false then"),
        },
        "taskq_core/broker/lua/_batch.lua": {
            "an enqueue wakes no worker": ("      wake(wake_key) -- before the tasks", "      -- before the tasks"),
        },
        "taskq_core/broker/lua/_clock.lua": {
            "a delayed task starts up to a second early": (
                "math.ceil((now_ms + delay_ms) / 1000)",
                "math.floor((now_ms + delay_ms) / 1000)",
            ),
        },
        "taskq_core/broker/lua/_store.lua": {
            "the unique lock of a delayed task does not last until it starts": (
                "(scheduled and math.floor((start_s * 1000 - now.ms) / 1000) or 0)",
                "0",
            ),
        },
    },
    "tests/conformance/test_priority.py": {
        "taskq_core/broker/lua/_place.lua": {
            "an urgent task goes ahead of earlier tasks of its own band": (
                "pivot = redis.call('ZRANGE', urgent, '(' .. whole(ends), '-inf',",
                "pivot = redis.call('ZRANGE', urgent, '(' .. whole(ends - BAND), '-inf',",
            ),
        },
        "taskq_core/broker/lua/forward.lua": {
            "a retry is forwarded in the band of the first attempt": (
                "band_of(fields[2], source == 2)",
                "band_of(fields[2], false)",
            ),
        },
    },
    "tests/conformance/test_run.py": {
        "taskq_core/broker/lua/dequeue.lua": {
            "a repeated dequeue returns other tasks": ("if number == ARGV[3] then", "if false then"),
            "a dequeue that was cancelled returns tasks when it arrives": (
                "  redis.call('SET', KEYS[6], ARGV[3] .. ':', 'EX', whole(math.max(120, tonumber(ARGV[6]))))\n",
                "",
            ),
        },
        "taskq_core/broker/lua/_ends.lua": {
            "a worker settles a task that another worker has taken over": ("owner == fence", "owner"),
        },
        "taskq_core/broker/lua/extend_leases.lua": {
            "a worker extends the lease of a task that another worker has taken over": (
                "fields[1] == owner .. score",
                "fields[1]",
            ),
            "an extended lease does not match the fence of its task": (
                "    redis.call('HSET', key, 'taskq_owner', owner .. expiry)\n",
                "",
            ),
        },
        "taskq_core/broker/lua/settle.lua": {
            "a task that is returned goes to the end of its queue": (
                "redis.call('RPUSH', KEYS[3], id)",
                "redis.call('LPUSH', KEYS[3], id)",
            ),
        },
        "taskq_core/broker/lua/settle_and_dequeue.lua": {
            "the joined settlement deletes a task that a client waits for": (
                "if mine < size or not is_plain then",
                "if mine < size then",
            ),
        },
    },
    "tests/taskq_core/worker/test_queue_limits.py": {
        "taskq_core/broker/lua/_hand_out.lua": {
            "a queue runs more tasks at once than its limit": (
                "limit = math.min(limit, most - redis.call('LLEN', KEYS[2]))",
                "limit = math.min(limit, most)",
            ),
        },
    },
    "tests/taskq_core/worker/test_late_settlements.py": {
        "taskq_core/broker/lua/_ends.lua": {
            "a settlement does not compare the run": (
                "owner == fence",
                "owner and string.gsub(owner, '%.%d+:', ':') == string.gsub(fence, '%.%d+:', ':')",
            ),
        },
    },
    "tests/conformance/test_full_memory.py": {
        "taskq_core/broker/lua/extend_leases.lua": {
            "leases are not extended while Redis is full": ("redis.call('DEL', KEYS[2])\n", ""),
        },
    },
    "tests/conformance/test_services.py": {
        "taskq_core/broker/lua/mark_starts.lua": {
            "a run is marked as started after its lease has ended": (
                "if score and tonumber(score) > now_s and ",
                "if score and ",
            ),
        },
        "taskq_core/broker/lua/recover.lua": {
            "recovery takes a task back without checking its lease again": (
                "if is_lost and score == ARGV[i + 2] and message == ARGV[i + 3] then",
                "if score then",
            ),
        },
        "taskq_core/broker/lua/forward.lua": {
            "due tasks are forwarded a second early": (
                "'-inf', whole(now_s), 'BYSCORE'",
                "'-inf', whole(now_s + 1), 'BYSCORE'",
            ),
        },
        "taskq_core/broker/lua/_lead.lua": {
            "two workers lead the same service": (
                "if type(holder) == 'string' and holder ~= token then",
                "if false then",
            ),
        },
        "taskq_core/broker/lua/clean.lua": {
            "a completed task is deleted before its retention ends": (
                "'-inf', whole(now_s), 'BYSCORE'",
                "'-inf', '+inf', 'BYSCORE'",
            ),
        },
    },
    "tests/conformance/test_steps.py": {
        "taskq_core/broker/lua/_emit.lua": {
            "a late request moves the position of a loop back": (
                "  if last_run == run and tonumber(last) >= tonumber(ARGV[first]) then",
                "  if last_run == run and tonumber(last) >= tonumber(ARGV[first]) and not ... then",
            ),
            "a late batch of emitted values is appended again": (
                "tonumber(last) >= tonumber(ARGV[first])",
                "last == ARGV[first]",
            ),
        },
        "taskq_core/broker/lua/store_step.lua": {
            "a worker that lost the task stores the result of a step": (
                "if not score or fields[1] ~= ARGV[1] .. ':' .. score then\n  return 0\nelseif not fields[2]",
                "if not score then\n  return 0\nelseif not fields[2]",
            ),
            "a repeated step replaces its result": (
                "redis.call('HSETNX', KEYS[3], ARGV[3], value) == 0",
                "redis.call('HSET', KEYS[3], ARGV[3], value) == 2",
            ),
        },
        "taskq_core/broker/lua/signal.lua": {
            "a signal does not wake the task that waits for it": (
                "resume(ARGV[8], ARGV[9], now_ns, now_ms, ARGV[2], wait)\n",
                "\n",
            ),
            "a repeated signal arrives twice": ("elseif known[2] and known[1] == mark then", "elseif false then"),
            "a signal that arrives late reaches a later task with the same id": ("if late then --", "if false then --"),
            "a second answer replaces the first": ("ARGV[15] ~= '0' and (known[8] or", "ARGV[15] ~= '0' and (false or"),
            "an answer reaches another question": (
                "string.match(known[7] or '', '^%d+') ~= ARGV[15])",
                "not known[7])",
            ),
            "a signal counts as the answer to a question": (
                "elseif ARGV[15] == '0' and string.match(",
                "elseif false and string.match(",
            ),
            "a cancelled task gets an answer": ("known[8] or known[10] or", "known[8] or"),
            "an answered question stays in the inbox": (
                "  redis.call('ZREM', KEYS[7]",
                "  -- redis.call('ZREM', KEYS[7]",
            ),
            "a signal shortens the life of a record": ("now_ns, record_ttl(start_s, now_s))", "now_ns)"),
        },
        "taskq_core/broker/lua/_questions.lua": {
            "a question of a cancelled task stays in the inbox": ("and not found[5] ", ""),
            "two questions of a task have the same number": ("redis.call('HINCRBY', record, 'questions', 1)", "1"),
        },
        "taskq_core/broker/lua/cancel_steps.lua": {
            "a second request to cancel replaces the first": ("elseif not record[3] then", "else"),
            "a cancelled task goes on waiting": ("    wake(KEYS[6])\n", ""),
            "a task that has not begun is run to cancel it": ("or not record[2] then", "then"),
        },
        "taskq_core/broker/lua/ask_cancel.lua": {
            "a task cancelled while it runs waits": (
                "  redis.call('HSET', KEYS[2], 'cancel', record[3] or whole(now_ms) .. ' ' .. wish)\n",
                "",
            ),
        },
        "taskq_core/broker/lua/_resume.lua": {
            "what happens in the moment of a cancellation counts": ("cancelled_ms + 1", "cancelled_ms"),
            "a resumed task wakes no worker": ("    wake(own .. 'wake')\n", ""),
            "the second of several signals does not wake": (
                "return waiting == wait or several",
                "return waiting == wait or false",
            ),
        },
        "taskq_core/broker/lua/settle.lua": {
            "a task waits although the signal has arrived": (
                "    resume(ARGV[3], own, now_ns, now_ms, id, event)\n",
                "",
            ),
            "a cancellation at the moment of a wait is lost": (
                "if asked and asked ~= 's' and started == (fields[2] or '') then",
                "if false then",
            ),
        },
        "taskq_core/broker/lua/_steps.lua": {
            "a task finds the steps of an earlier task with its id": (
                "    redis.call('DEL', record, stream) --",
                "    --",
            ),
            "a lost record counts as an empty record": (
                "  elseif redis.call('HGET', record, 'of') ~= mark then\n    return false\n",
                "",
            ),
            "a task waits for several signals although one has arrived": (
                "      return 'r:' .. signal\n",
                "      return nil\n",
            ),
            "a task waits for sub-tasks that have ended": (
                "return ended or state ~= 'running' and state ~= 'building'",
                "return false",
            ),
        },
        "taskq_core/broker/lua/_flow.lua": {
            "the end of sub-tasks reaches a later task with the same id": (
                "if type(begun) == 'string' and string.match(begun, ' (.*)$') == id_of() then",
                "if task then",
            ),
        },
        "taskq_core/broker/lua/load_steps.lua": {
            "output after an interruption counts as the same attempt": (
                "  if run ~= 'w' then\n",
                "  if attempt == '0' then\n",
            ),
        },
        "taskq_core/broker/lua/_erase.lua": {
            "the record of a deleted task stays": ("    forget_steps(keys.prefix, id)\n", ""),
        },
    },
    "tests/conformance/test_states.py": {
        "taskq_core/broker/lua/collect_groups.lua": {
            "collected members of a group stay in the group": (
                "      redis.call('ZREMRANGEBYRANK', group, 0, most - 1)\n",
                "",
            ),
        },
        "taskq_core/broker/lua/dequeue.lua": {
            "a dequeue returns tasks of a paused queue": (
                "if redis.call('LLEN', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[4]) == 1 then",
                "if redis.call('LLEN', KEYS[1]) == 0 then",
            ),
        },
        "taskq_core/broker/lua/settle.lua": {
            "failures are not counted": ("count(ARGV[3], 'failed', failed, now_s, tonumber(ARGV[5]))\n", ""),
        },
        "taskq_core/broker/lua/_trim.lua": {
            "the archive grows beyond its limit": (
                "local excess = redis.call('ZCARD', archived) - max_size",
                "local excess = 0",
            ),
        },
    },
    "tests/conformance/test_check_then_write.py": {
        "taskq_core/broker/lua/settle.lua": {
            "a settlement writes before it checks the types of its keys": (
                "check('ZCARD', KEYS[4], KEYS[5], KEYS[6])",
                "check('ZCARD', KEYS[4], KEYS[6])",
            ),
        },
    },
    "tests/conformance/test_unique.py": {
        "taskq_core/broker/lua/_unique.lua": {
            "a task that has ended keeps its unique lock": (
                "if is_lock(lock) and redis.pcall('GET', lock) == id then",
                "if false then",
            ),
            "a task releases a unique lock that another task holds": (
                "if is_lock(lock) and redis.pcall('GET', lock) == id then",
                "if is_lock(lock) then",
            ),
            "a script deletes any key that a task names as its unique lock": (
                "string.sub(name, 1, #unique_prefix) == unique_prefix",
                "name ~= ''",
            ),
        },
        "taskq_core/broker/lua/_renew.lua": {
            "a running task does not renew its unique lock": (
                "if left_ms >= 0 and left_ms < seconds * 1000 then",
                "if false then",
            ),
        },
    },
    "tests/conformance/test_limits.py": {
        "taskq_core/broker/lua/_limits.lua": {
            "a limit lets one more task run than it has places": (
                "own('ZCARD', holders) >= permits",
                "own('ZCARD', holders) > permits",
            ),
            "a new task starts before tasks that wait for the same limit": (
                "if waiting > 0 or not take(limit, id) then",
                "if not take(limit, id) then",
            ),
            "a task that starts does not spend the tokens of its rate": (
                "      rate.level = rate.level - limit.cost\n",
                "",
            ),
        },
        "taskq_core/broker/lua/settle.lua": {
            "a task that has ended keeps its place in a limit": (
                "  limits.release_permits(id, key, of_sequence[outcome])\n",
                "",
            ),
        },
    },
    "tests/conformance/test_semaphore.py": {
        "taskq_core/broker/lua/acquire.lua": {
            "a semaphore has one place too many": (
                "whole(now_s), '+inf') >= tonumber(ARGV[2])",
                "whole(now_s), '+inf') > tonumber(ARGV[2])",
            ),
        },
    },
    "tests/taskq_core/workflow/test_running.py": {
        "taskq_core/broker/lua/_flow.lua": {
            "a step of a workflow starts before all its predecessors have ended": (
                "if add('p' .. j, -1) == 0 then",
                "if add('p' .. j, -1) <= 1 then",
            ),
            "steps after a failed step are not skipped": ("if edge == 's' and state ~= 'd' then", "if false then"),
        },
        "taskq_core/broker/lua/_cancelled.lua": {
            "a step of a cancelled workflow runs": ("  return cancelled\n", "  return false\n"),
        },
    },
    "tests/taskq_core/workflow/test_workers.py": {
        "taskq_core/broker/lua/_flow.lua": {
            "the end of a step counts twice": ("elseif current ~= 'p' and current ~= 'h' then", "elseif false then"),
        },
        "taskq_core/broker/lua/put_steps.lua": {
            "a step that was sent to another queue twice is stored twice": (
                "if not redis.call('ZSCORE', KEYS[5], ARGV[i]) then",
                "if true then",
            ),
        },
    },
    "tests/conformance/test_aggregation.py": {
        "taskq_core/broker/lua/combine.lua": {
            "an aggregation set is combined after its deadline": (
                "if not score or tonumber(score) <= now_s or size == 0",
                "if not score or size == 0",
            ),
        },
        "taskq_core/broker/lua/reclaim.lua": {
            "a group that gets its members back is not listed": (
                "    redis.call('RENAME', set, prefix .. name)\n    redis.call('SADD', KEYS[2], name)\n",
                "    redis.call('RENAME', set, prefix .. name)\n",
            ),
        },
    },
    "tests/conformance/test_reconcile.py": {
        "taskq_core/broker/lua/repair_tasks.lua": {
            "the reconciler repairs damage that it has found only once": (
                "if kind ~= '' and diagnosis == expected then",
                "if kind ~= '' then",
            ),
            "a task in two lists is still in both after its repair": ("      unlist(task, truth)\n", ""),
        },
    },
    "tests/conformance/test_letters.py": {
        "taskq_core/broker/lua/take_dead_letters.lua": {
            "a dead letter is returned to two callers": ("  redis.call('ZADD', KEYS[1], until_s, id)\n", ""),
        },
    },
    "tests/conformance/test_schedules.py": {
        "taskq_core/broker/lua/tick.lua": {
            "a scheduler that was frozen enqueues a firing again": ("if mark.at ~= ARGV[i + 1] then", "if false then"),
        },
    },
    "tests/conformance/test_outbox.py": {
        "taskq_core/broker/lua/deliver.lua": {
            "a second delivery of an outbox row stores its task again": (
                "if not redis.call('ZSCORE', KEYS[4], ARGV[i]) then",
                "if true then",
            ),
            "an outbox sender stores rows after its claim has ended": (
                "if now_ms >= tonumber(ARGV[2]) then",
                "if false then",
            ),
        },
    },
    "tests/taskq_core/inspector/test_move.py": {
        "taskq_core/broker/lua/deliver.lua": {
            "an interrupted move to another queue stores a second copy": (
                "if not redis.call('ZSCORE', KEYS[4], ARGV[i]) then",
                "if true then",
            ),
        },
        "taskq_core/broker/lua/copy_end.lua": {
            "a task is put back while another caller may send its copy": ("(caller == ARGV[4] and #", "(caller and #"),
        },
    },
    "tests/taskq_core/inspector/test_change.py": {
        "taskq_core/broker/lua/change_task.lua": {
            "a new payload overwrites a concurrent change of another caller": (
                "if rewrites and fields[2] ~= ARGV[5] then",
                "if false then",
            ),
        },
    },
    "tests/taskq_core/inspector/test_removal.py": {
        "taskq_core/broker/lua/close_queue.lua": {
            "a queue with running tasks is removed": (
                "if active > 0 or (counting > 0 and ARGV[2] ~= '1') then",
                "if counting > 0 and ARGV[2] ~= '1' then",
            ),
        },
    },
    "tests/taskq_core/worker/test_steps_faults.py": {
        "taskq_core/execution/step_record.py": {
            "sub-tasks have the ids of those of an earlier task with the same id": (
                'f"{task_id}\\n{mark}\\n{name}"',
                'f"{task_id}\\n{name}"',
            ),
        },
    },
    "tests/taskq_core/scheduler/test_scheduler.py": {
        "taskq_core/scheduler/ticker.py": {
            "two schedulers give the task of one firing different ids": (
                'uuid.uuid5(_TICK_IDS, f"{entry_id}\\n{task_name}\\n{at_s}")',
                "uuid.uuid4()",
            ),
        },
    },
    "tests/taskq_core/broker/test_sync.py": {
        "taskq_core/broker/exchange.py": {
            "a failed enqueue forgets that an earlier attempt may have stored the task": (
                "operation.in_doubt = error.may_have_happened = operation.in_doubt or error.may_have_happened",
                "operation.in_doubt = error.may_have_happened",
            ),
        },
    },
    "tests/taskq_core/worker/test_settler.py": {
        "taskq_core/broker/exchange.py": {
            "a worker does not load a script again that Redis has deleted": (
                "elif not is_missing_script(refused):",
                "else:",
            ),
        },
    },
    "tests/taskq_core/broker/test_cluster.py": {
        "taskq_core/broker/cluster.py": {
            "a script runs while the slot of its keys moves to another node": (
                'return (f"{before}{{{tag}}}:absent",)',
                "return ()",
            ),
        },
    },
    "tests/taskq_core/wire/test_keys.py": {
        "taskq_core/wire/keys.py": {
            "taskq's own keys of a queue are on another slot than Asynq's": (
                'f"taskq:{{{name}}}:" if prefix',
                'f"taskq:{name}:" if prefix',
            ),
            "a queue name may leave the hash tag empty": ('if name.startswith("}"):', "if False:"),
        },
    },
    "tests/taskq_core/wire/test_messages.py": {
        "taskq_core/wire/messages.py": {
            "a changed message loses fields that this release does not know": (
                "    copy.CopyFrom(message)\n",
                "    copy.CopyFrom(message)\n    copy.DiscardUnknownFields()\n",
            ),
        },
    },
    "tests/taskq_core/tasks/test_uniqueness.py": {
        "taskq_core/wire/uniqueness.py": {
            "ignored arguments change the unique lock": (
                "counted = payload if names is None else chosen(payload, names)",
                "counted = payload",
            ),
        },
    },
    "tests/taskq_core/codec/test_codec.py": {
        "taskq_core/codec/values.py": {
            "NaN is stored as null": ("return not math.isfinite(plain)", "return False"),
        },
    },
}
"""For each test file and each file of code: the errors, and the text that each of them replaces by another."""


def _mutants() -> Iterator[Mutant]:
    for tests, files in _CATALOGUE.items():
        for file, errors in files.items():
            for name, (old, new) in errors.items():
                yield Mutant(name, file, old, new, tests)


MUTANTS = tuple(_mutants())
