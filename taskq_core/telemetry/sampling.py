"""Find out whether an SDK's sampler follows the decision of the parent, without asking it for each span.

With `ParentBased`, the default of every SDK, a span whose parent is not sampled is not sampled either. Starting such a
span costs about 10 us, so it is not started, and the parent's context is passed on. Any other sampler is asked.
"""

from opentelemetry.trace import SpanContext, TraceFlags, TracerProvider

_PREFIX = "ParentBased{"
_REMOTE = "remoteParentNotSampled:AlwaysOffSampler"
_LOCAL = "localParentNotSampled:AlwaysOffSampler"


class Sampling:
    """Whether a provider's sampler drops the children of parents that are not sampled.

    Args:
        provider: The provider. None, or a provider without the attribute `sampler`, drops nothing.
    """

    __slots__ = ("_local", "_remote")

    def __init__(self, provider: TracerProvider | None) -> None:
        sampler = getattr(provider, "sampler", None)
        try:
            # The specification fixes this text: opentelemetry.io/docs/specs/otel/trace/sdk/#getdescription
            description = str(sampler.get_description()) if sampler is not None else ""
        except Exception:  # of the project
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
