"""Check whether Redis accepts writes, so that a dashboard offers no action that Redis would refuse."""

from taskq_core.broker.operations import diagnosis
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerAuthenticationError, BrokerUnavailableError
from taskq_core.wire import DEFAULT_QUEUE, Keys

NO_RIGHTS = "the Redis user may not write"
REPLICA = "this Redis is a replica and accepts no writes"


def read_refusal(keys: Keys) -> RequestPlan[str]:
    """Return why Redis refuses writes, "" if it accepts them. The check deletes a key that never exists.

    Raises:
        BrokerError: Redis does not answer, or refuses the write for another reason.
    """
    try:
        yield from ask(diagnosis.try_write(keys.queue(DEFAULT_QUEUE).absent))
    except BrokerAuthenticationError:
        return NO_RIGHTS
    except BrokerUnavailableError as error:
        if "read only replica" in str(error):
            return REPLICA
        raise
    return ""
