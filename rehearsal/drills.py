"""The faults that can be ordered: names, options and what each does. `rehearsal.injection` does it.

Nothing here loads moto: `fab rehearsal.fault --list` answers at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rehearsal.moments import moment

_CALL = re.compile(r"[a-z][a-z0-9-]*:[A-Z]\w+")
_TYPE = re.compile(r"\w+::\w+::\w+")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a fault."""

    default: str
    says: str
    allowed: tuple[str, ...] = ()
    """Values that it takes; empty: any that `pattern` matches."""
    pattern: str = r".*"
    like: str = ""
    """What to write, where the value is not allowed."""


def _number(default: int, says: str) -> Option:
    return Option(default=str(default), says=says, pattern=r"\d{1,7}", like="a whole number from 0")


_INSTANCE = Option(default="", says="Id of the instance; the seed chooses a running one where it is left out.",
                   pattern=r"(i-[0-9a-f]{8,17})?", like="an id such as i-0123456789abcdef0")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One kind of fault."""

    name: str
    says: str
    options: Mapping[str, Option] = field(default_factory=dict)


DRILLS: Mapping[str, Drill] = {
    drill.name: drill
    for drill in (
        Drill(name="no-capacity", says="EC2 has few machines left, or none: launches are refused, fleets short.",
              options={
                  "instance_type": Option(default="", says="Which type; all where it is left out."),
                  "zone": Option(default="", says="Which availability zone; all where it is left out."),
                  "left": _number(0, "How many machines are left."),
                  "fleet": Option(default="short", allowed=("short", "fails"),
                                  says="What becomes of a fleet with none: short: it stands, with its errors; fails."),
              }),
        Drill(name="quota", says="The account's vCPU quota is that low: launches are refused.",
              options={"vcpus": _number(0, "vCPUs that the quota allows.")}),
        Drill(name="throttled", says="AWS refuses calls as too many; the SDK tries each again, up to a limit.",
              options={
                  "action": Option(default="", says="Which call; else the one it meets, or any of the operator's.",
                                   pattern=f"({_CALL.pattern})?", like="one such as ec2:RunInstances"),
                  "times": _number(2, "How many calls are refused."),
              }),
        Drill(name="credentials-expired", says="The operator's credentials expire; the guard's and the nodes' do not.",
              options={"times": _number(0, "How many calls are refused; 0: all from then on.")}),
        Drill(name="spot-notice", says="A spot instance gets its two minutes' notice and is then taken away.",
              options={"instance": _INSTANCE}),
        Drill(name="node-death", says="A node dies: all its processes are killed.",
              options={
                  "instance": _INSTANCE,
                  "how": Option(default="ended", allowed=("ended", "dead"),
                                says="ended: EC2 terminates it; dead: EC2 goes on to say that it runs."),
              }),
        Drill(name="ssh-refused", says="A node takes no new SSH connections.",
              options={
                  "instance": _INSTANCE,
                  "seconds": _number(0, "For how long, on the rehearsal's clock; 0: until the faults are cleared."),
              }),
        Drill(name="ssh-flapping", says="A node drops its SSH connections, and of the new ones each n-th.",
              options={"instance": _INSTANCE, "every": Option(default="2", says="The n of each n-th; 1 drops all.",
                                                              pattern=r"[1-9]\d{0,3}", like="a number from 1")}),
        Drill(name="fsx-slow", says="A file system takes long to come up, or to go.",
              options={"seconds": _number(900, "How long, on the rehearsal's clock.")}),
        Drill(name="fsx-stuck", says="A file system that is deleted stays in DELETING until the faults are cleared.",
              options={"seconds": _number(0, "How long, on the rehearsal's clock; 0: until the faults are cleared.")}),
        Drill(name="image-slow", says="An image that is made stays pending for long.",
              options={"seconds": _number(900, "How long, on the rehearsal's clock.")}),
        Drill(name="placement-group-in-use", says="DeletePlacementGroup is refused: the group is still in use.",
              options={"times": _number(3, "How many calls are refused.")}),
        Drill(name="delete-failed", says="CloudFormation fails to delete a resource: the stack is DELETE_FAILED.",
              options={
                  "type": Option(default="AWS::EC2::SecurityGroup", says="Type of the resource.",
                                 pattern=_TYPE.pattern, like="one such as AWS::EC2::Subnet"),
                  "times": _number(1, "How many deletions fail."),
              }),
        Drill(name="clock-jump", says="Time jumps ahead, as after a laptop's sleep; the ticks that were due follow.",
              options={"seconds": _number(3600, "How far.")}),
        Drill(name="hand-made", says="Somebody makes a thing by hand, untagged, in a lab's network.",
              options={"kind": Option(default="any", says="What; any: the seed chooses.",
                                      allowed=("any", "interface", "instance", "volume", "security-group",
                                               "nat-gateway"))}),
        Drill(name="laptop-killed",
              says="The client that makes the call, cdk or fab, is killed with all it started and hears no answer."),
        Drill(name="guard-fails", says="The guard's next ticks do nothing.",
              options={
                  "how": Option(default="raises", allowed=("raises", "times-out"), says="In which way."),
                  "times": _number(1, "How many ticks fail."),
              }),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """A fault as it was ordered."""

    drill: Drill
    at: str
    """See `rehearsal.moments`."""
    seed: int
    options: Mapping[str, str]
    """Every option of the drill's."""

    def number(self, option: str) -> int:
        """A number among the options."""
        return int(self.options[option])

    def __str__(self) -> str:
        given = [f"{key}={value}" for key, value in self.options.items() if value != self.drill.options[key].default]
        return " ".join([self.drill.name, *given, f"at {self.at}, seed {self.seed}"])


def ordered(name: str, at: str, seed: int, options: Mapping[str, Any]) -> Ordered:
    """The order that a request describes, checked.

    Raises:
        ValueError: no such fault, moment, option or value; one line that says what there is.
    """
    drill = DRILLS.get(name)
    if drill is None:
        raise ValueError(f"fault={name!r} is not known: write one of {', '.join(DRILLS)}")
    moment(at, seed)
    for key, value in options.items():
        option = drill.options.get(key)
        if option is None:
            raise ValueError(f"{name} has no option {key!r}: it takes {', '.join(drill.options)}")
        if option.allowed and value not in option.allowed:
            raise ValueError(f"{key}={value!r} is not allowed: write {' | '.join(option.allowed)}")
        if not re.fullmatch(option.pattern, str(value)):
            raise ValueError(f"{key}={value!r} is not allowed: write {option.like}")
    chosen = {key: str(options.get(key, option.default)) for key, option in drill.options.items()}
    return Ordered(drill=drill, at=at, seed=seed, options=chosen)


def listed() -> list[dict[str, Any]]:
    """All faults, as `fab rehearsal.fault --list` shows them."""
    return [
        {
            "fault": drill.name,
            "says": drill.says,
            "options": {key: {"default": option.default, "says": option.says} for key, option in drill.options.items()},
        }
        for drill in DRILLS.values()
    ]
