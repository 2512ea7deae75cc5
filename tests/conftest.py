"""What holds for every test."""

import signal

from hypothesis import HealthCheck, settings

# The same examples each time, however long they take: a gate that fails must fail again.
settings.register_profile("gate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")

# A shell gives SIGINT to none of its background jobs, and what is started here would inherit that: the tests of Ctrl-C
# must mean the same wherever they run.
signal.signal(signal.SIGINT, signal.default_int_handler)
