"""What a user asks of `fab up`, checked before any account is asked."""

import re
from dataclasses import dataclass

from labs.catalog import Lab
from labs.prices import cost_of
from operate import budget
from operate.choice import override
from operate.verb import number

_MAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked of `fab up`."""

    lab: Lab
    given: frozenset[str] = frozenset()
    """Fields of the lab that the user wrote; the others may follow what stands already."""
    budget: float | None = None
    """Dollars that the lab may cost, its failed tries included."""
    notify: str = ""
    """Mail address that GuardStack tells of ends."""
    fallback: bool = False
    """Whether on-demand nodes will do where spot is short."""
    force: bool = False
    """Go on where the preflight fails."""

    def check(self) -> None:
        """Refuse a budget that buys too little, before any account is asked.

        Raises:
            Problem: as `budget.hours_of`.
        """
        if self.budget is not None:
            budget.hours_of(self.budget, self.lab, cost_of(self.lab).usd_per_hour)


def read_wish(lab: Lab, *, context: str, owner: str, spend: str, notify: str, fallback: str, force: bool) -> Wish:
    """What the flags of `fab up` ask for `lab`, checked before any account is asked.

    Raises:
        ValueError: a flag's value is not allowed.
        Problem: a budget that buys too little.
    """
    if fallback not in ("", "on-demand"):
        raise ValueError(f"fallback={fallback!r} is not allowed: write --fallback on-demand, or leave it out")
    if notify and not _MAIL.fullmatch(notify):
        raise ValueError(f"notify={notify!r} is no mail address: write --notify me@example.org")
    chosen = override(lab, context)
    if owner:
        chosen = chosen.override(owner=owner)
    if fallback and chosen.capacity != "spot":
        raise ValueError(f"fallback={fallback!r} is not allowed with capacity={chosen.capacity}: leave it out")
    amount = number("budget", spend)
    if amount == 0:
        raise ValueError("budget=0 is not allowed: write the dollars that the lab may cost, for example --budget 25")
    given = frozenset(item.partition("=")[0].strip() for item in context.split(",") if item)
    wish = Wish(lab=chosen, given=given, budget=amount, notify=notify, fallback=bool(fallback), force=force)
    wish.check()
    return wish
