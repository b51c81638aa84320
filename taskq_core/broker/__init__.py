"""The only room that speaks Redis.

`operations` says what is sent and how the answer reads, without input or output; `lua/` holds one transition a file;
`sync` and `aio` send operations; `connection` turns a URL into connections; `embedded` keeps a private redis-server.
"""
