"""Log an outage of Redis once for a whole process, instead of once for each part whose requests fail.

Log other failures that last until a person acts, such as a missing table, once a minute.
"""

import logging
import threading

from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.errors import BrokerError, BrokerUnavailableError, ConfigurationError, TaskQError

logger = logging.getLogger("taskq.worker")

EVERY_S = 60.0
"""Minimum seconds between two log lines that say that Redis is unavailable."""
QUIET_S = 1.0
"""Seconds without a failure after which an answer of Redis ends the outage. Answers alone do not end it, because one
node of a cluster may fail while others answer."""


ADDRESS_HINT = "is Redis running? --url, TASKQ_URL or in Django TASKQ['URL'] sets its address"


def start_problem(error: TaskQError) -> str:
    """Return why a worker or scheduler does not start, with a hint if Redis cannot be reached."""
    text = str(error).rstrip(".")
    return f"{text}; {ADDRESS_HINT}" if isinstance(error, BrokerUnavailableError) else text


class Outage:
    """Records whether Redis is unavailable to the parts of a process. Its methods are callable from any thread.

    Args:
        clock: Source of time.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since_s: float | None = None
        self._failed_s = 0.0
        self._answered_s: float | None = None
        self._logged_s: float | None = None
        self._is_logged = False
        self._asked_s: dict[tuple[str, str], float] = {}

    def ask_for_help(self, what: str, error: ConfigurationError) -> None:
        """Log once a minute that a service does not work until a person changes something.

        Args:
            what: Name of the service.
            error: What is wrong and what to do.
        """
        key, now = (what, str(error)), self._clock.monotonic()
        with self._lock:
            is_due = key not in self._asked_s or now - self._asked_s[key] >= EVERY_S
            if is_due:
                self._asked_s[key] = now
        logger.log(logging.ERROR if is_due else logging.DEBUG, "%s does not work: %s", what, error)

    def report(self, what: str, error: BrokerError, failures: int = 1) -> None:
        """Log that a request failed and is repeated. Log a lost connection only once a minute for the whole process.

        Args:
            what: Description of the failed request, for the log.
            error: The error.
            failures: Number of failures in a row. An error other than a lost connection is not logged at each failure.
        """
        if not isinstance(error, BrokerUnavailableError):
            if failures in (1, 10) or failures % 100 == 0:
                logger.error("%s: %s; trying again", what, error)
            return
        with self._lock:
            now = self._failed_s = self._clock.monotonic()
            self._answered_s = None
            if self._since_s is None:
                self._since_s = now
            is_due = self._logged_s is None or now - self._logged_s >= EVERY_S
            if is_due:
                self._logged_s, self._is_logged = now, True
        if is_due:
            logger.error("Redis is unavailable: %s; trying again", error)
        else:
            logger.debug("%s: %s; trying again", what, error)

    def answered(self) -> None:
        """End the outage, if there was one, because Redis has answered a request."""
        if self._since_s is None:
            return
        with self._lock:
            now = self._clock.monotonic()
            if self._answered_s is None:
                self._answered_s = now
            if self._since_s is None or now - self._failed_s < QUIET_S:
                return
            outage_s, is_logged = self._answered_s - self._since_s, self._is_logged
            self._since_s, self._is_logged = None, False
        logger.log(
            logging.INFO if is_logged else logging.DEBUG, "Redis answers again, after an outage of %.1f s", outage_s
        )
