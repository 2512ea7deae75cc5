"""What holds for every test."""

import signal

# A shell gives SIGINT to none of its background jobs, and what is started here would inherit that: the tests of Ctrl-C
# must mean the same wherever they run.
signal.signal(signal.SIGINT, signal.default_int_handler)
