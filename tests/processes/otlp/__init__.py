"""Test the data that a collector gets from three processes: a Django site, a FastAPI app and a worker."""
