"""The pieces of `serve` and `load`: a server of our own model, a client that keeps time, the load that drives it."""
