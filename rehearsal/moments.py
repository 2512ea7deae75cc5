"""When a fault strikes: a step of the rehearsal, by name.

now                              at once
ec2:RunInstances[:2]             the (second) call of that name from now on, whoever makes it
call[:5]                         the operator's (fifth) call; without a number the seed draws one of the next fifty
AWS::EC2::VPC:CREATE_COMPLETE    that event of a stack; a number may follow here too
tick[:3]                         the guard's (third) tick from now on
"""

import random
import re
from dataclasses import dataclass
from typing import Literal

_CALL = re.compile(r"(?P<name>[a-z][a-z0-9-]*:[A-Z]\w+)(:(?P<nth>\d+))?")
_EVENT = re.compile(r"(?P<name>\w+::\w+::\w+:[A-Z]+(_[A-Z]+)+)(:(?P<nth>\d+))?")
_PLAIN = re.compile(r"(?P<name>now|tick|call)(:(?P<nth>\d+))?")
Kind = Literal["now", "call", "event", "tick"]
_DRAWN = 50
"""How many calls a seed draws from."""


@dataclass(kw_only=True)
class Moment:
    """One moment that is awaited."""

    kind: Kind
    name: str
    """What happens then; "" for any call of the operator's, and for a tick."""
    nth: int
    """How often it has still to happen, 1 or more."""

    def met(self, kind: str, name: str) -> bool:
        """Count one thing that happens; whether it was the one that is awaited."""
        if kind != self.kind or self.name not in ("", name):
            return False
        self.nth -= 1
        return self.nth == 0


def moment(step: str, seed: int) -> Moment:
    """The moment that a step names.

    Raises:
        ValueError: it names none.
    """
    if found := _PLAIN.fullmatch(step):
        kinds: dict[str, Kind] = {"now": "now", "tick": "tick", "call": "call"}
        drawn = random.Random(f"moment {seed}").randint(1, _DRAWN) if step == "call" else 1
        made = Moment(kind=kinds[found["name"]], name="", nth=int(found["nth"] or drawn))
    elif found := _EVENT.fullmatch(step):
        made = Moment(kind="event", name=found["name"], nth=int(found["nth"] or 1))
    elif found := _CALL.fullmatch(step):
        made = Moment(kind="call", name=found["name"], nth=int(found["nth"] or 1))
    else:
        raise ValueError(f"at={step!r} is no moment: write now, ec2:RunInstances, ec2:RunInstances:2, call, tick:3 or "
                         "AWS::EC2::VPC:CREATE_COMPLETE")  # fmt: skip
    if made.nth < 1:
        raise ValueError(f"at={step!r} never comes: write a number from 1")
    return made
