"""A small Django site, for measuring the cost of taskq. `BENCH_SITE=plain` runs it without taskq."""
