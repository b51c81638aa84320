"""The error of the demo."""


class DemoError(Exception):
    """A check of the demo failed, or a process ended. The message names the problem."""
