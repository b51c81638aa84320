"""What an enqueued task is known by: its handle, its state, its events and its result."""
