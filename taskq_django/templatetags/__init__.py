"""Template tags: `{% load taskq %}`."""
