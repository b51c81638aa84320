"""The whole example at work, on one machine with nothing prepared: `python -m example_project.demo`.

It starts a private Redis, the Django site, the FastAPI app and a worker as processes of their own, visits both sites
over HTTP, waits for the tasks, and shows for every request the one trace that leads from it to the end of its tasks.
"""
