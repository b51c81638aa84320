"""`runworker`, and `taskq` with the same under a name that no other app takes."""
