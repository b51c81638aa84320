"""Tell whether an SDK's sampler follows the decision that came along with a trace, without asking it each time.

With the samplers that every SDK uses unless told otherwise (`ParentBased`), a span whose parent is not sampled is not
sampled either. Starting such a span costs about 10 us all the same, so it is not started: the parent's context is
passed on as it is. Any other sampler is asked.
"""

from opentelemetry.trace import SpanContext, TraceFlags, TracerProvider

_PREFIX = "ParentBased{"
_REMOTE = "remoteParentNotSampled:AlwaysOffSampler"
_LOCAL = "localParentNotSampled:AlwaysOffSampler"


class Sampling:
    """What is known of a provider's sampler.

    Args:
        provider: The provider; None, or one that shows no sampler, is always asked.
    """

    __slots__ = ("_local", "_remote")

    def __init__(self, provider: TracerProvider | None) -> None:
        sampler = getattr(provider, "sampler", None)
        try:
            # The specification fixes this text: opentelemetry.io/docs/specs/otel/trace/sdk/#getdescription
            description = str(sampler.get_description()) if sampler is not None else ""
        except Exception:  # somebody's own sampler
            description = ""
        # A root sampler may name others in its description: what follows it is ParentBased's own.
        own = description.rpartition("remoteParentSampled:")[2] if description.startswith(_PREFIX) else ""
        self._remote = _REMOTE in own
        self._local = _LOCAL in own

    def drops(self, parent: SpanContext) -> bool:
        """Whether a child of this parent is surely not sampled."""
        if parent.trace_flags & TraceFlags.SAMPLED or not parent.is_valid:
            return False
        return self._remote if parent.is_remote else self._local
