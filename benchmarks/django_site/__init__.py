"""A small Django site, for measuring what taskq adds to one. `BENCH_SITE=plain` leaves taskq out."""
