"""Many requests of different lengths through one model: in fixed batches, and continuously."""
