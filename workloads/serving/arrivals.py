"""When requests are due, and how long each would wait if they were served one after another.

Open loop: users come when they come, whether or not the one before is served. Independent users make a Poisson
process: gaps between them are exponential, mean 1/λ. A closed loop (so many clients, each waiting for its answer before
it asks again) cannot show what happens past the knee: it slows down with the server.
"""

import math
import random
from collections.abc import Sequence


def poisson(rate: float, window_s: float, seed: int) -> tuple[float, ...]:
    """Seconds within `window_s` at which requests are due, at `rate` a second in the mean.

    The same seed draws the same users at every rate: only the scale of time differs.
    """
    assert rate > 0
    draw, now = random.Random(seed), 0.0
    times: list[float] = []
    while True:
        now += -math.log(1 - draw.random()) / rate
        if now >= window_s:
            return tuple(times)
        times.append(now)


def waits(due_s: Sequence[float], service_s: float) -> tuple[float, ...]:
    """How long each waits before it is served, one after another, each `service_s` long.

    Lindley's recursion (https://doi.org/10.1017/S0305004100027638): who comes waits for what is left of those before.
    """
    free_s, found = -math.inf, []
    for due in due_s:
        begin_s = max(due, free_s)
        found.append(begin_s - due)
        free_s = begin_s + service_s
    return tuple(found)
