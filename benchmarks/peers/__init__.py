"""Measure other task queues in the same way, each in a separate environment without taskq."""
