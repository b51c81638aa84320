"""What a running task can use: its context, progress, iteration, lifespans and log fields."""
