"""A photo studio's web shop: the example that the tutorial builds and `python -m example_project.demo` runs."""
