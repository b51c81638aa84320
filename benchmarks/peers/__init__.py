"""Other task queues under the same measurements, each in an environment of its own without taskq."""
