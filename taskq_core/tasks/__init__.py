"""What a developer declares: tasks, their options and limits, periodic tasks, handlers, middleware, workflows."""
