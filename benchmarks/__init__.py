"""Measurements of taskq, each beside what Redis itself can do with the same scripts.

`make bench` runs them all. Figures belong to the machine they were taken on.
"""
