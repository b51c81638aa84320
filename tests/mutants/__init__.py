"""Mutation tests: deliberate errors in taskq's code (mutants), and a runner that checks that the tests detect them."""
