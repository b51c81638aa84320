"""Mutation tests: deliberate errors (mutants) in the scripts and the protocol, which the tests must detect."""
