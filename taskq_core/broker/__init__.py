"""The only package that communicates with Redis.

`operations` defines the requests and how their replies are decoded, without input or output. `lua/` has one file per
script. `sync` and `aio` send operations. `connection` opens connections to the server of a URL. `embedded` runs a
private redis-server.
"""
