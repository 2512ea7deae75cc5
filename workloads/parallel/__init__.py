"""What the workloads that train one model over several ranks share: the step, its bytes, its trace, its check."""
