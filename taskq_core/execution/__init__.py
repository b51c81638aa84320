"""Features for running tasks: context, progress, iteration, lifespans and log fields."""
