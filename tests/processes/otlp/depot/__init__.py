"""A Django app whose tasks are enqueued by the site and by the FastAPI app, and run by a worker."""
