"""What happens in one life, drawn from the soak's seed and the life's number alone."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.soak.templates import KINDS

_STEPS = 55
"""A client that lives takes about so many steps: requests and commands over SSH."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One fault and its moment."""

    fault: str
    at: str
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        given = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.fault}{given} at {self.at}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One life."""

    number: int
    kind: str
    """One of `templates.KINDS`."""
    troubles: tuple[Trouble, ...]
    killed_at: int
    """The client's step at which it is killed; 0: it is left to its end."""
    after: bool
    """Whether that step is still made."""
    report: bool
    teardown: bool
    """Whether the user ends the lab; else the guard does."""
    work_s: float
    """How long each of the two workloads takes."""

    def __str__(self) -> str:
        killed = f"killed {'after' if self.after else 'at'} step {self.killed_at}" if self.killed_at else "not killed"
        return f"{self.kind}; {'; '.join(map(str, self.troubles))}; {killed}"


_BEGINS = ("AWS::EC2::VPC:CREATE_COMPLETE", "AWS::EC2::SecurityGroup:CREATE_COMPLETE")
_WORKS = ("call", "call:12", "call:20", "call:30", "s3:PutObject", "s3:PutObject:2", "ssm:GetParameter")
_ENDS = ("tick:2", "tick:3", "tick:4", "tick:5", "cloudformation:DeleteStack", "ec2:TerminateInstances")
_MAKERS = ("AWS::EC2::Subnet:CREATE_COMPLETE", "AWS::CloudFormation::Stack:CREATE_COMPLETE")


def _troubles(chance: random.Random) -> tuple[Trouble, ...]:
    def pick(*values: str) -> str:
        return chance.choice(values)

    def whole(least: int, most: int) -> str:
        return str(chance.randint(least, most))

    actions = ("ec2:DescribeInstances", "ec2:TerminateInstances", "cloudformation:DeleteStack", "s3:PutObject",
               "cloudformation:DescribeStacks", "ec2:DeleteSecurityGroup", "ec2:DescribeVolumes",
               "fsx:DeleteFileSystem", "ssm:GetParameter", "ec2:AuthorizeSecurityGroupIngress", "")  # fmt: skip
    kinds = ("AWS::EC2::SecurityGroup", "AWS::EC2::Subnet", "AWS::EC2::VPC", "AWS::EC2::LaunchTemplate",
             "AWS::EC2::InternetGateway", "AWS::FSx::FileSystem", "AWS::EC2::Instance")  # fmt: skip
    drawn = {
        "no-capacity": lambda: (pick("now", *_BEGINS), {"left": whole(0, 1)}),
        "quota": lambda: (pick("now", *_BEGINS), {"vcpus": "0"}),
        "throttled": lambda: (pick("now", *_BEGINS, *_WORKS, *_ENDS),
                              {"action": pick(*actions), "times": whole(1, 12)}),
        "credentials-expired": lambda: (pick(*_WORKS[:4]), {"times": whole(0, 30)}),
        "spot-notice": lambda: (pick(*_MAKERS[1:], *_WORKS), {}),
        "node-death": lambda: (pick(*_MAKERS[1:], *_WORKS, *_ENDS[:2]), {"how": pick("ended", "dead")}),
        "ssh-refused": lambda: (pick(*_MAKERS[1:], *_WORKS), {"seconds": whole(1, 3)}),
        "ssh-flapping": lambda: (pick(*_MAKERS[1:], *_WORKS), {"every": whole(2, 4)}),
        "fsx-slow": lambda: (pick("now", *_ENDS), {"seconds": pick("1", "900", "2400")}),
        "fsx-stuck": lambda: (pick(*_ENDS), {"seconds": pick("1800", "3600")}),
        "placement-group-in-use": lambda: ("now", {"times": whole(1, 6)}),
        "delete-failed": lambda: ("now", {"type": pick(*kinds), "times": whole(1, 4)}),
        "clock-jump": lambda: (pick(*_BEGINS, *_WORKS), {"seconds": pick("60", "600", "1500", "5000")}),
        "hand-made": lambda: (pick(*_MAKERS, *_WORKS, "tick:2", "AWS::EC2::VPC:DELETE_IN_PROGRESS"), {"kind": "any"}),
        "guard-fails": lambda: (pick("tick", "tick:2", "tick:3"), {"how": pick("raises", "times-out"),
                                                                  "times": whole(1, 4)}),
    }  # fmt: skip
    made = []
    for name in chance.sample(sorted(drawn), chance.randint(1, 3)):
        at, options = drawn[name]()
        made.append(Trouble(fault=name, at=at, seed=chance.randrange(1 << 30), options=options))
    return tuple(made)


def plan(seed: int, number: int) -> Plan:
    """The life of that number; the same for the same seed, always."""
    chance = random.Random(f"soak {seed} {number}")
    return Plan(
        number=number,
        kind=chance.choice(KINDS),
        killed_at=chance.randint(1, _STEPS) if chance.random() < 0.6 else 0,
        after=chance.random() < 0.5,
        report=chance.random() < 0.3,
        teardown=chance.random() < 0.5,
        work_s=chance.choice((0.05, 0.2, 0.8)),
        troubles=_troubles(chance),
    )
