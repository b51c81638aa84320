"""How long the streams of events keep still, and when clients come back: those of the routes and of the dashboard."""

RECONNECT_MS = 2_000
"""Milliseconds after which a client whose stream has ended comes back."""
FULL_MS = 10_000
"""Milliseconds after which one comes back whose stream was one too many."""
QUIET_S = 15.0
"""Seconds without an event after which a comment is sent, so that nobody on the way takes the stream for dead."""
