"""Mutants: small ways to break taskq, and a runner that shows that the tests notice each of them."""
