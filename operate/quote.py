"""What a lab would cost at the region's prices of today, told before it is deployed."""

from collections.abc import Mapping, Sequence

from labs.catalog import Lab
from labs.prices import Cost, Price, cost_of, dollars
from operate.account import Account
from operate.rates import rates_of


class Quotes:
    """Costs of a lab's variants; each market's rates are asked once."""

    def __init__(self, account: Account, types: Sequence[str]) -> None:
        """`types`: all that a variant may run on."""
        self._account = account
        self._types = tuple(types)
        self._rates: dict[bool, Mapping[str, Price]] = {}
        self.notes: list[str] = []
        """What could not be asked, and is priced by the table."""

    def cost(self, lab: Lab) -> Cost:
        """What the lab costs an hour, the most where it is a range."""
        spot = lab.capacity == "spot"
        if spot not in self._rates:
            self._rates[spot], note = rates_of(self._account, self._types, spot=spot)
            if note and note not in self.notes:
                self.notes.append(note)
        return cost_of(lab, region=self._account.region, rates=self._rates[spot])


def told(cost: Cost, hours: float) -> str:
    """For example "$9.48/h, $37.90 for 4 h" or "$3.30 to $10.51/h, $13.21 to $42.06 for 4 h"."""
    least, most = cost.least_usd_per_hour, cost.usd_per_hour
    if least is None or most is None:
        return f"{dollars(most)}/h, {dollars(cost.usd(hours))} for {hours:g} h"
    return f"{dollars(least)} to {dollars(most)}/h, {dollars(least * hours)} to {dollars(most * hours)} for {hours:g} h"
