"""One check of a preflight: what was looked at, what was seen, and what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from operate.account import explain
from operate.problem import Problem

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a preflight."""

    name: str
    """What was looked at, for example "vCPU quota"."""
    verdict: Verdict
    """"fail": the lab would not come up. "warn": it may not, or nobody can say."""
    seen: str
    """What was found, with its numbers."""
    remedy: str = ""
    """What to do; "" for a pass."""


def passed(name: str, seen: str) -> Check:
    """A check that found what it wanted."""
    return Check(name=name, verdict="pass", seen=seen)


def warned(name: str, seen: str, remedy: str) -> Check:
    """A check that could not tell, or found what may be wrong."""
    return Check(name=name, verdict="warn", seen=seen, remedy=remedy)


def failed(name: str, seen: str, remedy: str) -> Check:
    """A check that found why the lab would not come up."""
    return Check(name=name, verdict="fail", seen=seen, remedy=remedy)


def answered(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    """What `look` finds; where AWS denies or cannot answer a call, one warning named `name` that says so."""
    try:
        return look()
    except Problem as problem:
        return [warned(name, problem.cause, problem.remedy)]
    except (BotoCoreError, ClientError) as error:
        why = explain(error)
        return [warned(name, why.cause, why.remedy)]
