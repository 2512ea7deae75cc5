"""What is measured: one module a workload, each runs alone as `python -m workloads.NAME`. torch, numpy, labs."""
