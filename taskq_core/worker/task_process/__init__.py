"""Run plain functions for a worker in a separate process.

`taskq_core.worker.processes` is the worker's side. Tasks arrive as encoded messages. Results leave as JSON, and errors
as class name and text. Nothing is pickled.
"""
