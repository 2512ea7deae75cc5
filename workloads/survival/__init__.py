"""A training that survives: its checkpoints, its history, the notice of its end, and the steps between them."""
