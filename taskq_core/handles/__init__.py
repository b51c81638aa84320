"""Handles of enqueued tasks, with their state, events and results."""
