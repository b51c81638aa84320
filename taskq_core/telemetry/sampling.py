"""Find out once whether an SDK's sampler follows the decision of the parent span.

With `ParentBased`, the default of every SDK, a span whose parent is not sampled is not sampled either. Starting such a
span costs about 10 us, so taskq does not start it, and passes the parent's context on. With any other sampler, taskq
starts every span, and the sampler decides whether the span is recorded.
"""

from opentelemetry.trace import SpanContext, TraceFlags, TracerProvider

_PREFIX = "ParentBased{"
_REMOTE = "remoteParentNotSampled:AlwaysOffSampler"
_LOCAL = "localParentNotSampled:AlwaysOffSampler"


class Sampling:
    """Finds out whether a provider's sampler drops all children of parents that are not sampled.

    Args:
        provider: The provider. None, or a provider without the attribute `sampler`, drops no span.
    """

    __slots__ = ("_local", "_remote")

    def __init__(self, provider: TracerProvider | None) -> None:
        sampler = getattr(provider, "sampler", None)
        try:
            # OpenTelemetry's specification defines the description:
            # opentelemetry.io/docs/specs/otel/trace/sdk/#getdescription
            description = str(sampler.get_description()) if sampler is not None else ""
        except Exception:  # a sampler of the user may raise any exception
            description = ""
        # ParentBased's description starts with its root sampler, which may contain other samplers. Its own parts
        # follow.
        own = description.rpartition("remoteParentSampled:")[2] if description.startswith(_PREFIX) else ""
        self._remote = _REMOTE in own
        self._local = _LOCAL in own

    def drops(self, parent: SpanContext) -> bool:
        """Return whether the sampler drops every child of this parent span."""
        if parent.trace_flags & TraceFlags.SAMPLED or not parent.is_valid:
            return False
        return self._remote if parent.is_remote else self._local
