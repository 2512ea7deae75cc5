"""The parts of the `collectives` workload: what is done, in which sizes, over what, and the proof that it was EFA."""
