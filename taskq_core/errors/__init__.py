"""The errors that taskq raises, and the exceptions that a task raises to control its queue.

::

    TaskQError
    |-- ConfigurationError           a setting, a task option or a URL is not valid (also a ValueError)
    |   |-- TaskDefinitionError      a function cannot become a task (also a TypeError)
    |   `-- WorkflowDefinitionError  a workflow has a mistake; the error names the step
    |-- TaskArgumentsError           the arguments of a call do not match the task's parameters (also a TypeError)
    |-- PayloadError                 a stored payload does not match the parameters of the task that should run it
    |-- MissingReferenceError        an argument refers to an object that does not exist, such as a deleted row
    |-- PayloadTooLargeError         a payload is over the limit (also a ValueError)
    |-- WireFormatError              data in Redis does not have the expected format
    |-- EnqueueError                 a task was not enqueued; the error has its id
    |   |-- DuplicateTaskError       another task holds the unique lock
    |   |-- TaskIdConflictError      another task of the queue has this id
    |   |-- QueueFullError           as many tasks are pending as the setting LIMITS allows
    |   |-- EnqueueUnknownError      Redis did not answer, so the task may or may not be enqueued
    |   `-- NotReplicatedError       the task is enqueued, but replicas have not confirmed it in time
    |-- BulkEnqueueError             a bulk enqueue stopped before its end; the error has the number of enqueued tasks
    |-- BrokerError                  Redis refused a request or could not be reached
    |   |-- BrokerUnavailableError   no connection, or no answer in time (also a ConnectionError)
    |   |   `-- CircuitOpenError     Redis failed several times in a row, so no request was sent
    |   |-- BrokerAuthenticationError
    |   |-- BrokerFullError          Redis is over its memory limit and accepts no new tasks
    |   |-- BrokerReplicationError   Redis executed the request, but replicas have not confirmed it in time
    |   |-- BrokerReplyError         Redis returned an error, or data of an unexpected format
    |   `-- EmbeddedRedisError       the private redis-server cannot be started or used
    |-- QueueNotFoundError
    |-- QueueStateError              the state of a queue does not allow the request; the error names the queue
    |   |-- QueuePausedError         the queue is already paused
    |   |-- QueueNotPausedError      the queue is not paused
    |   `-- QueueNotEmptyError       the queue contains tasks, so it was not removed
    |-- TaskNotFoundError
    |-- EntryNotFoundError           no schedule entry has this id
    |-- WorkerNotFoundError          no running worker has this name
    |-- TaskStateError               the state of a task does not allow the request
    |   `-- TaskActiveError          the task is running
    |-- NoCurrentTaskError           current_task() was called outside a task (also a LookupError)
    |-- ResultError                  the result of a task is not available
    |   |-- ResultNotKeptError       the task has no retention, so its result is not stored
    |   |-- ResultTimeoutError       the task did not finish in time (also a TimeoutError)
    |   |-- ResultTooLargeError      the result is over the limit and was not stored (also a ValueError)
    |   |-- TaskNotSentError         the surrounding transaction has not committed yet, or sending failed
    |   `-- TaskFailedError          the task was archived; the error has the task's error text
    |       `-- TaskExpiredError     the task was not started in time; error handlers get this error too
    |-- WorkflowError                the result of a workflow is not available; the error has its id
    |   |-- WorkflowFailedError      a step failed
    |   |-- WorkflowCancelledError   the workflow was cancelled
    |   |-- WorkflowNotFoundError    the workflow does not exist, or its retention is over
    |   |-- WorkflowDamagedError     the data of the workflow in Redis cannot be read
    |   |-- WorkflowNotSentError     the surrounding transaction has not committed yet, or sending failed
    |   `-- WorkflowTimeoutError     the workflow did not end in time (also a TimeoutError)
    |-- ResultValueError             a result has no JSON form, or a stored one has the wrong type (also a ValueError)
    |-- IterationError               another run could not continue the iteration of a task (also a ValueError)
    |-- StepError                    a step of a task, or a signal, cannot be stored or read (also a ValueError)
    |   |-- StepFailedError          a step raised an exception; the error has its class name and its text
    |   `-- SignalTimeoutError       a task received no signal in time (also a TimeoutError)
    |-- ProgressError                reported progress is not a number or not text (also a ValueError)
    |-- SemaphoreFullError           all permits of a semaphore are held
    |-- LeaseLostError               the worker no longer holds the lease of the task
    |-- TaskProcessError             the separate process of a task has ended, or did not start
    |-- TaskCancelledError           a run was cancelled on request; only error handlers get this error
    `-- UnknownTaskError             neither a task nor a handler is registered for a type

    TaskControl                      raised by a task, never by taskq
    |-- Retry(after=)                run the task again later; uses an attempt
    |-- Snooze(after=)               run the task again later; uses no attempt
    |-- SkipRetry                    archive the task now
    `-- Discard                      delete the task, without a retry and without an entry in the archive

    TaskInterrupted                  a BaseException raised inside a plain function that must end: its time is over, it
                                     was cancelled, its lease is lost, or the worker stops
    `-- TaskPaused                   raised between two items of `context.iterate`, and by `context.checkpoint`:
                                     another run of the task continues there
        `-- TaskWaiting              raised by `context.sleep`, `receive` and `call`: another run continues after the
                                     wait

An error has its data as attributes, its text is a sentence, and it can be pickled. No error contains a password or the
value of a task's argument, except that `MissingReferenceError` contains the keys of missing objects. Each error has a
`code`, and `taskq explain CODE` shows its causes and their fixes.
"""

from taskq_core.errors.base import *
from taskq_core.errors.inspection import *
from taskq_core.errors.runs import *
from taskq_core.errors.sending import *

for _class in list(vars().values()):
    if isinstance(_class, type) and _class.__module__.startswith(__name__):
        _class.__module__ = __name__  # tracebacks, pickles and stored errors then name the public module
