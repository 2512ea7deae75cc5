"""What Rooflab measures beside its peers: every number is a ratio between two that ran in turn on one machine.

python -m benchmarks            all of it: a table, and docs/measurements/bench-DATE.json
python -m benchmarks fanout     one of them
"""
