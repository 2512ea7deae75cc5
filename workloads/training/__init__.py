"""The pieces of a training step: loss, precision, clock, prediction, and what is kept for the backward pass."""
