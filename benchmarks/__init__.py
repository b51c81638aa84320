"""Measure the speed of taskq, and compare it with the speed of Redis itself when it runs the same scripts.

`make bench` runs all measurements. Compare figures only with figures of the same machine.
"""
