"""Code that long-running processes share: service loops, health ports, bridges between threads and coroutines."""
