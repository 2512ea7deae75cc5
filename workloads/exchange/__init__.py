"""The ways by which ranks exchange gradients, and what each of them costs."""
