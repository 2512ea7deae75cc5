"""The rungs of the optimisation ladder: what each one changes in the way a model makes its next token."""
