"""An AWS for a laptop: a real API on loopback, and instances one can reach by real SSH."""
