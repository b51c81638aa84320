"""Declarations in user code: tasks, options, limits, periodic tasks, handlers, middleware and workflows."""
