"""What ends the demo."""


class DemoError(Exception):
    """Something did not happen. The message names what is missing."""
