"""What a budget buys of a lab: dollars over a frozen price are hours, and hours are a deadline."""

from datetime import timedelta

from labs.catalog import Lab
from labs.prices import dollars
from operate.problem import Problem

LEAST = timedelta(minutes=15)
"""A lab that would end sooner is not deployed: it takes as long to boot."""


def hours_of(budget: float, lab: Lab, usd_per_hour: float | None) -> float:
    """Hours of the lab that the budget buys.

    Raises:
        Problem: the lab's price is not known, or the budget buys less than `LEAST`.
    """
    if usd_per_hour is None:
        raise Problem(f"what {lab.stack} costs is not known, so no budget can be kept",
                      f"leave --budget out; fab cost --lab {lab.number} says why; it ends after {lab.ttl_hours:g} h"
                      )  # fmt: skip
    least = LEAST.total_seconds() / 3600
    hours = budget / usd_per_hour
    if hours < least:
        raise Problem(
            f"a budget of {dollars(budget)} buys {hours * 60:.0f} min of {lab.stack} at {dollars(usd_per_hour)}/h",
            f"write at least --budget {least * usd_per_hour + 0.005:.2f}, for 15 min",
        )
    return hours
