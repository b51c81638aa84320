"""The mutants: one small error in the code each, and the tests that are likely to detect it.

A mutant is an error that a person could make. It changes one place in one file, and the program still runs.
When you move or change code that a mutant names, change the mutant with it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A deliberate error in the code.

    Attributes:
        name: The error, as a sentence.
        file: The file to change, relative to the root of the repository.
        old: The text to replace. It occurs exactly once in the file.
        new: The text that replaces it.
        tests: Test files or folders that are likely to detect the error. They run first.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_LUA = "taskq_core/broker/lua"
_BROKER = "taskq_core/broker"
_WORKER = "taskq_core/worker"
_SCRIPTS = "tests/conformance"
_CORE = "tests/taskq_core"
_OF_WORKER = "tests/taskq_core/worker"
_OF_INSPECTOR = "tests/taskq_core/inspector"
_OF_DJANGO = "tests/taskq_django"
_OF_FASTAPI = "tests/taskq_fastapi"

ENQUEUE = (
    Mutant(
        name="a repeated enqueue stores its tasks again",
        file=f"{_LUA}/_receipt.lua",
        old="if last == call then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="an enqueue that arrives after a later enqueue of the same caller is executed",
        file=f"{_LUA}/_receipt.lua",
        old="elseif last and tonumber(last) > tonumber(call) then",
        new="elseif false then",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="a request that arrives after its deadline is executed",
        file=f"{_LUA}/_late.lua",
        old="if left_ms < 0 or left_ms > 110000 then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="a full queue accepts another task",
        file=f"{_LUA}/enqueue.lua",
        old="elseif room and stored >= room then",
        new="elseif false then",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="an enqueue wakes no worker",
        file=f"{_LUA}/_batch.lua",
        old="      wake(wake_key) -- before the tasks",
        new="      -- before the tasks",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="a delayed task starts up to a second early",
        file=f"{_LUA}/_clock.lua",
        old="math.ceil((now_ms + delay_ms) / 1000)",
        new="math.floor((now_ms + delay_ms) / 1000)",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="the unique lock of a delayed task does not last until it starts",
        file=f"{_LUA}/_store.lua",
        old="(scheduled and math.floor((start_s * 1000 - now.ms) / 1000) or 0)",
        new="0",
        tests=(f"{_SCRIPTS}/test_enqueue.py",),
    ),
    Mutant(
        name="an urgent task goes ahead of earlier tasks of its own band",
        file=f"{_LUA}/_place.lua",
        old="pivot = redis.call('ZRANGE', urgent, '(' .. whole(ends), '-inf',",
        new="pivot = redis.call('ZRANGE', urgent, '(' .. whole(ends - BAND), '-inf',",
        tests=(f"{_SCRIPTS}/test_priority.py",),
    ),
)

RUNS = (
    Mutant(
        name="a repeated dequeue returns other tasks",
        file=f"{_LUA}/dequeue.lua",
        old="if number == ARGV[3] then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="a dequeue that was cancelled returns tasks when it arrives",
        file=f"{_LUA}/dequeue.lua",
        old="  redis.call('SET', KEYS[6], ARGV[3] .. ':', 'EX', whole(math.max(120, tonumber(ARGV[6]))))\n",
        new="",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="a dequeue returns tasks of a paused queue",
        file=f"{_LUA}/dequeue.lua",
        old="if redis.call('LLEN', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[4]) == 1 then",
        new="if redis.call('LLEN', KEYS[1]) == 0 then",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="a queue runs more tasks at once than its limit",
        file=f"{_LUA}/_hand_out.lua",
        old="limit = math.min(limit, most - redis.call('LLEN', KEYS[2]))",
        new="limit = math.min(limit, most)",
        tests=(f"{_OF_WORKER}/test_queue_limits.py",),
    ),
    Mutant(
        name="a worker settles a task that another worker has taken over",
        file=f"{_LUA}/_ends.lua",
        old="owner == fence",
        new="owner",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="a settlement does not compare the run",
        file=f"{_LUA}/_ends.lua",
        old="owner == fence",
        new="owner and string.gsub(owner, '%.%d+:', ':') == string.gsub(fence, '%.%d+:', ':')",
        tests=(f"{_OF_WORKER}/test_late_settlements.py",),
    ),
    Mutant(
        name="a worker extends the lease of a task that another worker has taken over",
        file=f"{_LUA}/extend_leases.lua",
        old="fields[1] == owner .. score",
        new="fields[1]",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="an extended lease does not match the fence of its task",
        file=f"{_LUA}/extend_leases.lua",
        old="    redis.call('HSET', key, 'taskq_owner', owner .. expiry)\n",
        new="",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="leases are not extended while Redis is full",
        file=f"{_LUA}/extend_leases.lua",
        old="redis.call('DEL', KEYS[2])\n",
        new="",
        tests=(f"{_SCRIPTS}/test_full_memory.py",),
    ),
    Mutant(
        name="a run is marked as started after its lease has ended",
        file=f"{_LUA}/mark_starts.lua",
        old="if score and tonumber(score) > now_s and ",
        new="if score and ",
        tests=(f"{_SCRIPTS}/test_services.py",),
    ),
    Mutant(
        name="a late request moves the position of a loop back",
        file=f"{_LUA}/_emit.lua",
        old="  if last_run == run and tonumber(last) >= tonumber(ARGV[first]) then",
        new="  if last_run == run and tonumber(last) >= tonumber(ARGV[first]) and not ... then",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="the last position of a run is not stored before its settlement",
        file="taskq_core/worker/step_store.py",
        old=" or self._has_new_position",
        new="",
        tests=(f"{_OF_WORKER}/test_iteration.py",),
    ),
    Mutant(
        name="a task that is returned goes to the end of its queue",
        file=f"{_LUA}/settle.lua",
        old="redis.call('RPUSH', KEYS[3], id)",
        new="redis.call('LPUSH', KEYS[3], id)",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
    Mutant(
        name="failures are not counted",
        file=f"{_LUA}/settle.lua",
        old="count(ARGV[3], 'failed', failed, now_s, tonumber(ARGV[5]))\n",
        new="",
        tests=(f"{_SCRIPTS}/test_run.py", f"{_SCRIPTS}/test_states.py"),
    ),
    Mutant(
        name="a settlement writes before it checks the types of its keys",
        file=f"{_LUA}/settle.lua",
        old="check('ZCARD', KEYS[4], KEYS[5], KEYS[6])",
        new="check('ZCARD', KEYS[4], KEYS[6])",
        tests=(f"{_SCRIPTS}/test_check_then_write.py",),
    ),
    Mutant(
        name="the joined settlement deletes a task that a client waits for",
        file=f"{_LUA}/settle_and_dequeue.lua",
        old="if mine < size or not is_plain then",
        new="if mine < size then",
        tests=(f"{_SCRIPTS}/test_run.py",),
    ),
)

LOCKS_AND_LIMITS = (
    Mutant(
        name="a task that has ended keeps its unique lock",
        file=f"{_LUA}/_unique.lua",
        old="if is_lock(lock) and redis.pcall('GET', lock) == id then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_unique.py",),
    ),
    Mutant(
        name="a task releases a unique lock that another task holds",
        file=f"{_LUA}/_unique.lua",
        old="if is_lock(lock) and redis.pcall('GET', lock) == id then",
        new="if is_lock(lock) then",
        tests=(f"{_SCRIPTS}/test_enqueue.py", f"{_SCRIPTS}/test_unique.py"),
    ),
    Mutant(
        name="a script deletes any key that a task names as its unique lock",
        file=f"{_LUA}/_unique.lua",
        old="string.sub(name, 1, #unique_prefix) == unique_prefix",
        new="name ~= ''",
        tests=(f"{_SCRIPTS}/test_unique.py",),
    ),
    Mutant(
        name="a running task does not renew its unique lock",
        file=f"{_LUA}/_renew.lua",
        old="if left_ms >= 0 and left_ms < seconds * 1000 then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_unique.py",),
    ),
    Mutant(
        name="a limit lets one more task run than it has places",
        file=f"{_LUA}/_limits.lua",
        old="own('ZCARD', holders) >= permits",
        new="own('ZCARD', holders) > permits",
        tests=(f"{_SCRIPTS}/test_limits.py",),
    ),
    Mutant(
        name="a new task starts before tasks that wait for the same limit",
        file=f"{_LUA}/_limits.lua",
        old="if waiting > 0 or not take(limit, id) then",
        new="if not take(limit, id) then",
        tests=(f"{_SCRIPTS}/test_limits.py",),
    ),
    Mutant(
        name="a task that starts does not spend the tokens of its rate",
        file=f"{_LUA}/_limits.lua",
        old="      rate.level = rate.level - limit.cost\n",
        new="",
        tests=(f"{_SCRIPTS}/test_limits.py",),
    ),
    Mutant(
        name="a task that has ended keeps its place in a limit",
        file=f"{_LUA}/settle.lua",
        old="  limits.release_permits(id, key, of_sequence[outcome])\n",
        new="",
        tests=(f"{_SCRIPTS}/test_limits.py",),
    ),
    Mutant(
        name="a semaphore has one place too many",
        file=f"{_LUA}/acquire.lua",
        old="whole(now_s), '+inf') >= tonumber(ARGV[2])",
        new="whole(now_s), '+inf') > tonumber(ARGV[2])",
        tests=(f"{_SCRIPTS}/test_semaphore.py",),
    ),
)

WORKFLOWS_AND_GROUPS = (
    Mutant(
        name="a step of a workflow starts before all its predecessors have ended",
        file=f"{_LUA}/_flow.lua",
        old="if add('p' .. j, -1) == 0 then",
        new="if add('p' .. j, -1) <= 1 then",
        tests=(f"{_CORE}/workflow/test_running.py",),
    ),
    Mutant(
        name="steps after a failed step are not skipped",
        file=f"{_LUA}/_flow.lua",
        old="if edge == 's' and state ~= 'd' then",
        new="if false then",
        tests=(f"{_CORE}/workflow/test_running.py",),
    ),
    Mutant(
        name="the end of a step counts twice",
        file=f"{_LUA}/_flow.lua",
        old="elseif current ~= 'p' and current ~= 'h' then",
        new="elseif false then",
        tests=(f"{_CORE}/workflow/test_workers.py",),
    ),
    Mutant(
        name="a step that was sent to another queue twice is stored twice",
        file=f"{_LUA}/put_steps.lua",
        old="if not redis.call('ZSCORE', KEYS[5], ARGV[i]) then",
        new="if true then",
        tests=(f"{_CORE}/workflow/test_workers.py",),
    ),
    Mutant(
        name="a step of a cancelled workflow runs",
        file=f"{_LUA}/_cancelled.lua",
        old="  return cancelled\n",
        new="  return false\n",
        tests=(f"{_CORE}/workflow/test_running.py", f"{_CORE}/workflow/test_workers.py"),
    ),
    Mutant(
        name="collected members of a group stay in the group",
        file=f"{_LUA}/collect_groups.lua",
        old="      redis.call('ZREMRANGEBYRANK', group, 0, most - 1)\n",
        new="",
        tests=(f"{_SCRIPTS}/test_aggregation.py",),
    ),
    Mutant(
        name="an aggregation set is combined after its deadline",
        file=f"{_LUA}/combine.lua",
        old="if not score or tonumber(score) <= now_s or size == 0",
        new="if not score or size == 0",
        tests=(f"{_SCRIPTS}/test_aggregation.py",),
    ),
    Mutant(
        name="a group that gets its members back is not listed",
        file=f"{_LUA}/reclaim.lua",
        old="    redis.call('RENAME', set, prefix .. name)\n    redis.call('SADD', KEYS[2], name)\n",
        new="    redis.call('RENAME', set, prefix .. name)\n",
        tests=(f"{_SCRIPTS}/test_aggregation.py",),
    ),
)

SERVICES = (
    Mutant(
        name="recovery takes a task back without checking its lease again",
        file=f"{_LUA}/recover.lua",
        old="if is_lost and score == ARGV[i + 2] and message == ARGV[i + 3] then",
        new="if score then",
        tests=(f"{_SCRIPTS}/test_services.py",),
    ),
    Mutant(
        name="due tasks are forwarded a second early",
        file=f"{_LUA}/forward.lua",
        old="'-inf', whole(now_s), 'BYSCORE'",
        new="'-inf', whole(now_s + 1), 'BYSCORE'",
        tests=(f"{_SCRIPTS}/test_services.py",),
    ),
    Mutant(
        name="a retry is forwarded in the band of the first attempt",
        file=f"{_LUA}/forward.lua",
        old="band_of(fields[2], source == 2)",
        new="band_of(fields[2], false)",
        tests=(f"{_SCRIPTS}/test_priority.py",),
    ),
    Mutant(
        name="two workers lead the same service",
        file=f"{_LUA}/_lead.lua",
        old="if type(holder) == 'string' and holder ~= token then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_services.py",),
    ),
    Mutant(
        name="a completed task is deleted before its retention ends",
        file=f"{_LUA}/clean.lua",
        old="'-inf', whole(now_s), 'BYSCORE'",
        new="'-inf', '+inf', 'BYSCORE'",
        tests=(f"{_SCRIPTS}/test_services.py",),
    ),
    Mutant(
        name="the archive grows beyond its limit",
        file=f"{_LUA}/_trim.lua",
        old="local excess = redis.call('ZCARD', archived) - max_size",
        new="local excess = 0",
        tests=(f"{_SCRIPTS}/test_states.py", f"{_SCRIPTS}/test_inspector_states.py"),
    ),
    Mutant(
        name="the reconciler repairs damage that it has found only once",
        file=f"{_LUA}/repair_tasks.lua",
        old="if kind ~= '' and diagnosis == expected then",
        new="if kind ~= '' then",
        tests=(f"{_SCRIPTS}/test_reconcile.py",),
    ),
    Mutant(
        name="a task in two lists is still in both after its repair",
        file=f"{_LUA}/repair_tasks.lua",
        old="      unlist(task, truth)\n",
        new="",
        tests=(f"{_SCRIPTS}/test_reconcile.py",),
    ),
    Mutant(
        name="a dead letter is returned to two callers",
        file=f"{_LUA}/take_dead_letters.lua",
        old="  redis.call('ZADD', KEYS[1], until_s, id)\n",
        new="",
        tests=(f"{_SCRIPTS}/test_letters.py",),
    ),
    Mutant(
        name="a scheduler that was frozen enqueues a firing again",
        file=f"{_LUA}/tick.lua",
        old="if mark.at ~= ARGV[i + 1] then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_schedules.py",),
    ),
    Mutant(
        name="a second delivery of an outbox row stores its task again",
        file=f"{_LUA}/deliver.lua",
        old="if not redis.call('ZSCORE', KEYS[4], ARGV[i]) then",
        new="if true then",
        tests=(f"{_SCRIPTS}/test_outbox.py",),
    ),
    Mutant(
        name="an outbox sender stores rows after its claim has ended",
        file=f"{_LUA}/deliver.lua",
        old="if now_ms >= tonumber(ARGV[2]) then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_outbox.py",),
    ),
)

OPERATORS = (
    Mutant(
        name="an interrupted move to another queue stores a second copy",
        file=f"{_LUA}/deliver.lua",
        old="if not redis.call('ZSCORE', KEYS[4], ARGV[i]) then",
        new="if true then",
        tests=(f"{_OF_INSPECTOR}/test_move.py",),
    ),
    Mutant(
        name="a task is put back while another caller may send its copy",
        file=f"{_LUA}/copy_end.lua",
        old="(deletes or caller == ARGV[4])",
        new="true",
        tests=(f"{_OF_INSPECTOR}/test_move.py",),
    ),
    Mutant(
        name="a new payload overwrites a concurrent change of another caller",
        file=f"{_LUA}/change_task.lua",
        old="if rewrites and fields[2] ~= ARGV[5] then",
        new="if false then",
        tests=(f"{_OF_INSPECTOR}/test_change.py",),
    ),
    Mutant(
        name="a queue with running tasks is removed",
        file=f"{_LUA}/close_queue.lua",
        old="if active > 0 or (counting > 0 and ARGV[2] ~= '1') then",
        new="if counting > 0 and ARGV[2] ~= '1' then",
        tests=(f"{_OF_INSPECTOR}/test_removal.py",),
    ),
    Mutant(
        name="a payload is replaced although it is not the expected one",
        file="taskq_core/handles/changing.py",
        old="if expected is not None and message.payload != expected:",
        new="if False:",
        tests=(f"{_OF_INSPECTOR}/test_selection.py",),
    ),
    Mutant(
        name="an action on all tasks of a state changes tasks that have left the state",
        file="taskq_core/inspector/selection.py",
        old="            state=tasks[0].state,\n",
        new="",
        tests=(f"{_OF_INSPECTOR}/test_bulk.py",),
    ),
    Mutant(
        name="the doctor does not report a queue that no worker serves",
        file="taskq_core/doctor/rules.py",
        old="elif waiting and not queue.is_served:",
        new="elif False:",
        tests=(f"{_CORE}/doctor/test_doctor.py",),
    ),
    Mutant(
        name="taskq doctor exits with 0 although it found an error",
        file="taskq_core/cli/doctor.py",
        old="return FAILED if any(finding.level is Level.RED for finding in findings) else 0",
        new="return 0",
        tests=(f"{_CORE}/cli/test_doctor.py",),
    ),
    Mutant(
        name="the exporter reports Redis as up while it is down",
        file="taskq_exporter/exporter.py",
        old="value=float(is_up))",
        new="value=1.0)",
        tests=("tests/taskq_exporter/test_exporter.py",),
    ),
)

WORKER = (
    Mutant(
        name="a settlement without a response is not repeated",
        file=f"{_WORKER}/settler.py",
        old="if now < run.lease_until + self._context.grace_s:",
        new="if now < 0:",
        tests=(f"{_OF_WORKER}/test_settler.py",),
    ),
    Mutant(
        name="a settlement is not repeated in the grace after its lease",
        file=f"{_WORKER}/settler.py",
        old="if now < run.lease_until + self._context.grace_s:",
        new="if now < run.lease_until:",
        tests=(f"{_OF_WORKER}/test_settler.py",),
    ),
    Mutant(
        name="a worker does not extend the leases of its tasks",
        file=f"{_WORKER}/keepalive.py",
        old="        self._extend(runs)\n",
        new="",
        tests=(f"{_OF_WORKER}/test_keepalive.py",),
    ),
    Mutant(
        name="a worker continues a task whose lease it could not extend",
        file=f"{_WORKER}/keepalive.py",
        old="        if lapsed:\n            self._lost(lapsed)\n",
        new="",
        tests=(f"{_OF_WORKER}/test_keepalive.py",),
    ),
    Mutant(
        name="a worker fetches more tasks than it has free slots",
        file=f"{_WORKER}/fetcher.py",
        old="limit = min(self.left + carried, turn.share)",
        new="limit = turn.share",
        tests=(f"{_OF_WORKER}/test_fetcher.py",),
    ),
    Mutant(
        name="a task runs past its timeout",
        file=f"{_WORKER}/deadlines.py",
        old="            run.ends_by = now + timeout_s\n",
        new="            run.ends_by = math.inf\n",
        tests=(f"{_OF_WORKER}/test_ending.py",),
    ),
    Mutant(
        name="a plain function is not interrupted at its timeout",
        file=f"{_WORKER}/threads.py",
        old="            raise_in_thread(self.ident, TaskInterrupted)\n",
        new="",
        tests=(f"{_OF_WORKER}/test_ending.py",),
    ),
    Mutant(
        name="a worker ignores the cancellation of a task",
        file=f"{_WORKER}/executor.py",
        old="            self.end(run, Ending.CANCELLED)\n",
        new="            pass\n",
        tests=(f"{_OF_WORKER}/test_cancel.py",),
    ),
    Mutant(
        name="a coroutine that raises SystemExit ends its worker",
        file=f"{_WORKER}/executor.py",
        old="        except BaseException as raised:\n",
        new="        except Exception as raised:\n",
        tests=(f"{_OF_WORKER}/test_executor.py",),
    ),
    Mutant(
        name="a worker runs a task that has expired",
        file=f"{_WORKER}/executor.py",
        old="if run.may_expire:",
        new="if False:",
        tests=(f"{_OF_WORKER}/test_expiry.py",),
    ),
    Mutant(
        name="a task of an unknown type is archived at once",
        file=f"{_WORKER}/outcome.py",
        old="if (waited_s or 0) >= timeout_s:",
        new="if True:",
        tests=(f"{_OF_WORKER}/test_outcome.py",),
    ),
    Mutant(
        name="a task runs once more than max_retry allows",
        file=f"{_WORKER}/outcome.py",
        old="retried >= message.retry",
        new="retried > message.retry",
        tests=(f"{_OF_WORKER}/test_outcome.py",),
    ),
    Mutant(
        name="a task that requests a delay for its retry is retried after its usual delay",
        file=f"{_WORKER}/outcome.py",
        old="delay = failure.delay if failure.delay is not None else _delay(run, failure.error, max(0, retried))",
        new="delay = _delay(run, failure.error, max(0, retried))",
        tests=(f"{_OF_WORKER}/test_outcome.py",),
    ),
    Mutant(
        name="a task that is interrupted by the stop of its worker uses an attempt",
        file=f"{_WORKER}/outcome.py",
        old="if run.ending is Ending.SHUTDOWN or (pause is not None and pause.is_stopping):",
        new="if pause is not None and pause.is_stopping:",
        tests=(f"{_OF_WORKER}/test_worker.py",),
    ),
    Mutant(
        name="the last delay of a list of delays is not repeated",
        file="taskq_core/execution/retry.py",
        old="steps[min(retried, len(steps) - 1)]",
        new="steps[retried % len(steps)]",
        tests=(f"{_CORE}/execution/test_retry.py", f"{_OF_WORKER}/test_outcome.py"),
    ),
    Mutant(
        name="the delay that a task sets does not apply after its worker was lost",
        file=f"{_WORKER}/recoverer.py",
        old="if options.retry_delay is None and is_first_loss:",
        new="if is_first_loss:",
        tests=(f"{_OF_WORKER}/test_recoverer.py", f"{_OF_WORKER}/test_take_back.py"),
    ),
    Mutant(
        name="the tasks of a dead process wait until their leases end",
        file=f"{_WORKER}/take_back.py",
        old="grace_s=0, archive=archive, gone=token,",
        new="grace_s=0, archive=archive,",
        tests=(f"{_OF_WORKER}/test_take_back.py",),
    ),
    Mutant(
        name="tasks of a dead worker are taken while a process that it started still runs one",
        file=f"{_WORKER}/takeover.py",
        old="        if is_held(token):\n            return False\n",
        new="",
        tests=(f"{_OF_WORKER}/test_takeover.py",),
    ),
    Mutant(
        name="a worker that stops gives its tasks no time to finish",
        file=f"{_WORKER}/draining.py",
        old='self._wait_for_tasks(config.span("shutdown_grace"))',
        new="self._wait_for_tasks(0.0)",
        tests=(f"{_OF_WORKER}/test_worker.py",),
    ),
    Mutant(
        name="a worker in burst mode stops while tasks are due",
        file=f"{_WORKER}/burst.py",
        old="if not self._is_out_of_work or await self._is_work_left():",
        new="if not self._is_out_of_work:",
        tests=(f"{_OF_WORKER}/test_worker.py",),
    ),
    Mutant(
        name="a result over the limit of its task is stored",
        file="taskq_core/codec/results.py",
        old="payload = within_limit(_encode(value), limit)",
        new="payload: bytes | OversizedResult = _encode(value)",
        tests=(f"{_OF_WORKER}/test_oversized.py",),
    ),
    Mutant(
        name="the cursor of a loop moves before the body has run",
        file="taskq_core/execution/iteration.py",
        old=(
            "                walk.enter()\n"
            "                yield item\n"
            "                walk.leave()\n"
            "                data, has_to_be_stored = self._passed(walk, cursor, item)\n"
            "                if has_to_be_stored:\n"
            "                    loops.store(data)\n"
            "                else:\n"
            "                    loops.save(data)\n"
        ),
        new=(
            "                data, has_to_be_stored = self._passed(walk, cursor, item)\n"
            "                if has_to_be_stored:\n"
            "                    loops.store(data)\n"
            "                else:\n"
            "                    loops.save(data)\n"
            "                walk.enter()\n"
            "                yield item\n"
            "                walk.leave()\n"
        ),
        tests=(f"{_CORE}/execution/test_iteration.py",),
    ),
    Mutant(
        name="the middleware of a task runs outside the middleware of its application",
        file="taskq_core/tasks/middleware.py",
        old="return tuple(each for scope in scopes for",
        new="return tuple(each for scope in scopes[::-1] for",
        tests=(f"{_OF_WORKER}/test_raw_tasks.py",),
    ),
)

SCHEDULER_SUPERVISOR_AND_SETTINGS = (
    Mutant(
        name="missed firings are enqueued although their entry skips them",
        file="taskq_core/scheduler/due.py",
        old="if catch_up is CatchUp.SKIP or on_time:",
        new="if on_time:",
        tests=(f"{_CORE}/scheduler/test_due.py",),
    ),
    Mutant(
        name="two schedulers give the task of one firing different ids",
        file="taskq_core/scheduler/ticker.py",
        old='uuid.uuid5(_TICK_IDS, f"{entry_id}\\n{task_name}\\n{at_s}")',
        new="uuid.uuid4()",
        tests=(f"{_CORE}/scheduler/test_scheduler.py",),
    ),
    Mutant(
        name="the supervisor does not return the tasks of a dead process",
        file="taskq_core/supervisor/supervisor.py",
        old="            self._background.start(self._returns.return_tasks(child, patience_s=patience_s))\n",
        new="            del patience_s\n",
        tests=("tests/processes/supervisor/test_supervisor.py",),
    ),
    Mutant(
        name="a misspelled setting is ignored",
        file="taskq_core/settings/values.py",
        old=(
            '            raise unknown(f"setting in {where}", str(key), known)\n'
            "    return {known[key]: value for key, value in mapping.items()}\n"
        ),
        new="            continue\n    return {known[key]: value for key, value in mapping.items() if key in known}\n",
        tests=(f"{_CORE}/settings/test_settings.py",),
    ),
)

CLIENT_AND_WIRE = (
    Mutant(
        name="a failed enqueue forgets that an earlier attempt may have stored the task",
        file=f"{_BROKER}/exchange.py",
        old="operation.in_doubt = error.may_have_happened = operation.in_doubt or error.may_have_happened",
        new="operation.in_doubt = error.may_have_happened",
        tests=(f"{_CORE}/broker/test_sync.py",),
    ),
    Mutant(
        name="a worker does not load a script again that Redis has deleted",
        file=f"{_BROKER}/exchange.py",
        old="elif not is_missing_script(refused):",
        new="else:",
        tests=(f"{_OF_WORKER}/test_settler.py",),
    ),
    Mutant(
        name="a script runs while the slot of its keys moves to another node",
        file=f"{_BROKER}/cluster.py",
        old='return (f"{before}{{{tag}}}:absent",)',
        new="return ()",
        tests=(f"{_CORE}/broker/test_cluster.py",),
    ),
    Mutant(
        name="taskq's own keys of a queue are on another slot than Asynq's",
        file="taskq_core/wire/keys.py",
        old='f"taskq:{{{name}}}:" if prefix',
        new='f"taskq:{name}:" if prefix',
        tests=(f"{_CORE}/wire/test_keys.py",),
    ),
    Mutant(
        name="a queue name may leave the hash tag empty",
        file="taskq_core/wire/keys.py",
        old='if name.startswith("}"):',
        new="if False:",
        tests=(f"{_CORE}/wire/test_keys.py",),
    ),
    Mutant(
        name="a changed message loses fields that this release does not know",
        file="taskq_core/wire/messages.py",
        old="    copy.CopyFrom(message)\n",
        new="    copy.CopyFrom(message)\n    copy.DiscardUnknownFields()\n",
        tests=(f"{_CORE}/wire/test_messages.py",),
    ),
    Mutant(
        name="the id that a call sets is ignored",
        file="taskq_core/client/preparer.py",
        old="chosen_id = plan.task_id or task_id",
        new="chosen_id = task_id",
        tests=(f"{_CORE}/client/test_client.py",),
    ),
    Mutant(
        name="a bulk enqueue hides which tasks were refused",
        file="taskq_core/client/bulk.py",
        old="                self.errors.append(error)\n",
        new="",
        tests=(f"{_CORE}/client/test_bulk.py",),
    ),
    Mutant(
        name="a client that may wait for a full queue fails at once",
        file="taskq_core/client/sender.py",
        old="if limit is None or limit.when_full is WhenFull.REJECT:",
        new="if limit is None or limit.when_full:",
        tests=(f"{_CORE}/client/test_back_pressure.py",),
    ),
    Mutant(
        name="the circuit breaker never opens",
        file="taskq_core/client/circuit.py",
        old="if is_new and self.failures < self._most_failures:",
        new="if is_new:",
        tests=(f"{_CORE}/client/test_circuit.py",),
    ),
    Mutant(
        name="a half-open circuit breaker permits more than one enqueue",
        file="taskq_core/client/circuit.py",
        old="if self._probe_until is not None and now < self._probe_until:",
        new="if False:",
        tests=(f"{_CORE}/client/test_circuit.py",),
    ),
    Mutant(
        name="ignored arguments change the unique lock",
        file="taskq_core/wire/uniqueness.py",
        old="counted = payload if names is None else chosen(payload, names)",
        new="counted = payload",
        tests=(f"{_CORE}/tasks/test_uniqueness.py",),
    ),
    Mutant(
        name="an argument of the wrong type is enqueued",
        file="taskq_core/codec/arguments.py",
        old="fits = self._decode_exact(payload) == bound",
        new="fits = True",
        tests=(f"{_CORE}/codec/test_codec.py",),
    ),
    Mutant(
        name="NaN is stored as null",
        file="taskq_core/codec/values.py",
        old="return not math.isfinite(plain)",
        new="return False",
        tests=(f"{_CORE}/codec/test_codec.py",),
    ),
    Mutant(
        name="a result that was too large to be stored reads as None",
        file="taskq_core/handles/handle.py",
        old="if oversized is not None:",
        new="if False:",
        tests=(f"{_CORE}/handles/test_handle.py", f"{_OF_WORKER}/test_oversized.py"),
    ),
    Mutant(
        name="a task does not carry the trace of its caller",
        file="taskq_core/client/preparer.py",
        old="left_out = fit(headers, trace) if trace else 0",
        new="left_out = 0",
        tests=(f"{_CORE}/client/test_client.py", f"{_OF_WORKER}/test_tracing.py"),
    ),
    Mutant(
        name="a span contains the message of an exception although messages are disabled",
        file="taskq_core/telemetry/recording.py",
        old="error and self._redaction.shown(error)",
        new="error",
        tests=(f"{_CORE}/telemetry/test_spans.py",),
    ),
)

DJANGO = (
    Mutant(
        name="a task that is enqueued in a transaction is sent before the commit",
        file="taskq_django/transaction.py",
        old="            after_commit(waiting_for, send, dropped, robust=not self._app.propagates)\n"
        "        return bool(waiting_for)\n",
        new="            pass\n        return False\n",
        tests=(f"{_OF_DJANGO}/test_transaction.py",),
    ),
    Mutant(
        name="a task is sent when the first of several transactions commits",
        file="taskq_django/transaction.py",
        old="SendAtLastCommit(len(waiting_for), send, dropped)",
        new="SendAtLastCommit(1, send, dropped)",
        tests=(f"{_OF_DJANGO}/test_transaction.py",),
    ),
    Mutant(
        name="an outbox row that another sender has claimed is claimed again",
        file="taskq_django/outbox.py",
        old="self._rows.filter(Q(claimed_until=None) | Q(claimed_until__lt=Now()))",
        new="self._rows.all()",
        tests=("tests/taskq_core/client/test_outbox.py",),
    ),
    Mutant(
        name="an outbox row of SQLAlchemy that another sender has claimed is claimed again",
        file="taskq_sqlalchemy/outbox.py",
        old=".where(or_(c.claimed_until_s.is_(None), c.claimed_until_s < UnixNow()))",
        new=".where(c.id > 0)",
        tests=("tests/taskq_core/client/test_outbox.py",),
    ),
    Mutant(
        name="an outbox sender deletes receipts although another sender has claimed its rows",
        file="taskq_core/client/outbox/delivery.py",
        old="if table.delete(claim, [row.receipt for row in rows if row.receipt in over]) < len(over):",
        new="if table.delete(claim, [row.receipt for row in rows if row.receipt in over]) < 0:",
        tests=("tests/taskq_core/client/test_outbox.py",),
    ),
    Mutant(
        name="an outbox row is released while Redis may still store its task",
        file="taskq_core/client/outbox/delivery.py",
        old="                if error.may_have_happened:\n                    pass",
        new="                if error.may_have_happened:\n                    left += [row.receipt for row in batch]",
        tests=("tests/taskq_core/client/test_outbox.py",),
    ),
    Mutant(
        name="a task whose model instance was deleted is retried",
        file="taskq_core/codec/arguments.py",
        old="            if missing:\n                raise MissingReferenceError",
        new="            if False:\n                raise MissingReferenceError",
        tests=(f"{_OF_DJANGO}/test_references.py",),
    ),
    Mutant(
        name="the admin lets every viewer run tasks",
        file="taskq_django/admin/base.py",
        old='return self.allows(request, "run")',
        new="return True",
        tests=(f"{_OF_DJANGO}/test_admin_tasks.py",),
    ),
)

STEPS = (
    Mutant(
        name="a worker that lost the task stores the result of a step",
        file=f"{_LUA}/store_step.lua",
        old="if not score or fields[1] ~= ARGV[1] .. ':' .. score then\n  return 0\nelseif not fields[2]",
        new="if not score then\n  return 0\nelseif not fields[2]",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a repeated step replaces its result",
        file=f"{_LUA}/store_step.lua",
        old="redis.call('HSETNX', KEYS[3], ARGV[3], ARGV[4]) == 0",
        new="redis.call('HSET', KEYS[3], ARGV[3], ARGV[4]) == 2",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a signal does not wake the task that waits for it",
        file=f"{_LUA}/signal.lua",
        old="resume(ARGV[8], ARGV[9], now_ns, now_ms, ARGV[2], wait)\n",
        new="\n",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a resumed task wakes no worker",
        file=f"{_LUA}/_resume.lua",
        old="    wake(own .. 'wake')\n",
        new="",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a task waits although the signal has arrived",
        file=f"{_LUA}/settle.lua",
        old="    resume(ARGV[3], own, now_ns, now_ms, id, awaited)\n",
        new="",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a repeated signal arrives twice",
        file=f"{_LUA}/signal.lua",
        old="elseif known[2] and known[1] == mark then",
        new="elseif false then",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a signal that arrives late reaches a later task with the same id",
        file=f"{_LUA}/signal.lua",
        old="if late then --",
        new="if false then --",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a task finds the steps of an earlier task with its id",
        file=f"{_LUA}/_steps.lua",
        old="    redis.call('DEL', record, stream) --",
        new="    --",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a lost record counts as an empty record",
        file=f"{_LUA}/_steps.lua",
        old="  elseif redis.call('HGET', record, 'of') ~= mark then\n    return false\n",
        new="",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="the end of sub-tasks reaches a later task with the same id",
        file=f"{_LUA}/_flow.lua",
        old="if type(begun) == 'string' and string.match(begun, ' (.*)$') == id_of() then",
        new="if task then",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a task waits for sub-tasks that have ended",
        file=f"{_LUA}/_steps.lua",
        old="return ended or state ~= 'running' and state ~= 'building'",
        new="return false",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="the result of a step is stored before its output",
        file=f"{_WORKER}/step_store.py",
        old="        if not self._unsent[name]:\n",
        new="        if True:\n",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="a worker starts a step after another worker has taken the task",
        file="taskq_core/execution/step_record.py",
        old="                if not retry:\n                    await self._hold_lease()\n",
        new="                pass\n",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="a late batch of emitted values is appended again",
        file=f"{_LUA}/_emit.lua",
        old="tonumber(last) >= tonumber(ARGV[first])",
        new="last == ARGV[first]",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="output after an interruption counts as the same attempt",
        file=f"{_LUA}/load_steps.lua",
        old="  if run ~= 'w' then\n",
        new="  if attempt == '0' then\n",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a cancellation at the moment of a wait is lost",
        file=f"{_LUA}/settle.lua",
        old="if asked and started == (fields[2] or '') then",
        new="if false then",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="a signal shortens the life of a record",
        file=f"{_LUA}/signal.lua",
        old="now_ns, record_ttl(start_s, now_s))",
        new="now_ns)",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="the record of a deleted task stays",
        file=f"{_LUA}/_erase.lua",
        old="    forget_steps(keys.prefix, id)\n",
        new="",
        tests=(f"{_SCRIPTS}/test_steps.py",),
    ),
    Mutant(
        name="sub-tasks have the ids of those of an earlier task with the same id",
        file="taskq_core/execution/step_record.py",
        old='f"{task_id}\\n{mark}\\n{name}"',
        new='f"{task_id}\\n{name}"',
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="the ids of sub-tasks are not stored",
        file="taskq_core/execution/step_record.py",
        old='            begun = await self._store(f"c:{name}", begun)\n',
        new="",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="a run ends before the steps that run concurrently",
        file="taskq_core/execution/step_record.py",
        old="        while self._open:\n",
        new="        while False:\n",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="a run ends before a step that the end of another step begins",
        file="taskq_core/execution/step_record.py",
        old="        while self._open:\n",
        new="        if self._open:\n",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="a step begins after its run has decided to wait",
        file="taskq_core/execution/step_record.py",
        old="if self._waiting is not None:  # called",
        new="if False:  # called",
        tests=(f"{_OF_WORKER}/test_steps.py", f"{_OF_WORKER}/test_steps_faults.py"),
    ),
    Mutant(
        name="a failed step does not wait for the other steps",
        file="taskq_core/execution/step_record.py",
        old="        await self._others_end()\n        assert failed",
        new="        assert failed",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
    Mutant(
        name="sub-tasks fail if Redis does not respond",
        file="taskq_core/worker/step_store.py",
        old="if not isinstance(error.__cause__, BrokerUnavailableError):",
        new="if True:",
        tests=(f"{_OF_WORKER}/test_steps_faults.py",),
    ),
)

FASTAPI = (
    Mutant(
        name="a router without dependencies is open to everybody",
        file="taskq_fastapi/closed.py",
        old="return not dependencies and not allow_anonymous",
        new="return False",
        tests=(f"{_OF_FASTAPI}/test_api_access.py",),
    ),
    Mutant(
        name="the API accepts a change from a page of another site",
        file="taskq_fastapi/api/origin.py",
        old="    if is_from_elsewhere(request, trusted):\n",
        new="    if False:\n",
        tests=(f"{_OF_FASTAPI}/test_api_access.py",),
    ),
    Mutant(
        name="the dashboard accepts a form without its CSRF token",
        file="taskq_dashboard/forgery.py",
        old="return hmac.compare_digest(token_for(secret, who), token)",
        new="return True",
        tests=("tests/taskq_dashboard/test_access.py",),
    ),
    Mutant(
        name="the API shows payloads to everybody",
        file="taskq_fastapi/api/access.py",
        old="return Shown(payloads=payloads is True, redact=redact)",
        new="return Shown(payloads=True, redact=redact)",
        tests=(f"{_OF_FASTAPI}/test_api_access.py",),
    ),
    Mutant(
        name="a read-only API makes changes",
        file="taskq_fastapi/api/access.py",
        old="        if not is_allowed:\n            audit_logger.warning(\n",
        new="        if False:\n            audit_logger.warning(\n",
        tests=(f"{_OF_FASTAPI}/test_api_access.py",),
    ),
    Mutant(
        name="refused logins are not counted",
        file="taskq_fastapi/throttle.py",
        old="            self.count(address_of(request))\n",
        new="            pass\n",
        tests=(f"{_OF_FASTAPI}/test_throttle.py",),
    ),
    Mutant(
        name="a status page shows the result of a task although results are hidden",
        file="taskq_core/views/status.py",
        old="has_result = show_results and info.state",
        new="has_result = info.state",
        tests=(f"{_OF_FASTAPI}/test_status.py",),
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    *ENQUEUE,
    *RUNS,
    *LOCKS_AND_LIMITS,
    *WORKFLOWS_AND_GROUPS,
    *SERVICES,
    *OPERATORS,
    *WORKER,
    *STEPS,
    *SCHEDULER_SUPERVISOR_AND_SETTINGS,
    *CLIENT_AND_WIRE,
    *DJANGO,
    *FASTAPI,
)
