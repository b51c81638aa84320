"""Run the whole example on one machine, without preparation: `python -m example_project.demo`.

It starts a private Redis, the Django site, the FastAPI app and a worker in separate processes. Then it visits both
sites over HTTP, waits for the tasks, and shows one trace for every request, from the request to the end of its tasks.
"""
