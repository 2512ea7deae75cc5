"""`fab advise`: the cheapest way to so many tokens, over instance types, markets and zones, with its arithmetic."""

import json as documents
from collections.abc import Iterator, Mapping, Sequence

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Table

from labs.advice import Traffic
from labs.instances import InstanceType, instance_type, instance_types
from labs.models import find_model
from labs.prices import Price, dollars
from operate.account import Account, explain
from operate.options import Option, Wish, options, plans, records_here, spot_prices
from operate.problem import Problem
from operate.rates import rates_of
from operate.screen import Screen

SHOWN = 12
"""Ways that a terminal shows; `--json` has all."""


def read_wish(model: str, *, train_tokens: str, serve_tokens: str, sequence: str = "", prompt: str = "",
              answer: str = "", ttft: str = "", tpot: str = "") -> Wish:  # fmt: skip
    """What the flags say.

    Raises:
        Problem: neither or both kinds of tokens were asked for.
        ValueError: a value is not allowed.
    """
    if bool(train_tokens) == bool(serve_tokens):
        cause = "two kinds of tokens were asked for" if train_tokens else "what the tokens are for was not said"
        raise Problem(cause, "write --train-tokens 2e9 or --serve-tokens 1e9")
    shape = find_model(model)
    if train_tokens:
        for flag, text in (("prompt", prompt), ("answer", answer), ("ttft", ttft), ("tpot", tpot)):
            if text:
                raise ValueError(f"{flag}={text!r} says nothing of training: write it with --serve-tokens")
        return Wish(model=shape, tokens=amount("train_tokens", train_tokens), train=True,
                    sequence=int(amount("sequence", sequence or "4096")))  # fmt: skip
    if sequence:
        raise ValueError(f"sequence={sequence!r} says nothing of serving: write --prompt and --answer")
    traffic = Traffic(prompt=int(amount("prompt", prompt or "512")), answer=int(amount("answer", answer or "128")),
                      ttft_s=amount("ttft", ttft) if ttft else None,
                      tpot_s=amount("tpot", tpot) if tpot else None)  # fmt: skip
    return Wish(model=shape, tokens=amount("serve_tokens", serve_tokens), train=False, traffic=traffic)


def amount(flag: str, text: str) -> float:
    """A flag's value as a number above 0; counts are whole.

    Raises:
        ValueError: it is none.
    """
    counted = flag not in ("ttft", "tpot")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e18 or (counted and not value.is_integer()):
        kind = "a whole number above 0: write for example 2e9" if counted else "seconds above 0: write for example 0.5"
        raise ValueError(f"{flag}={text!r} is not {kind}")
    return value


def candidates(types: str) -> list[InstanceType]:
    """The types of a list such as "g6.12xlarge,p5", families included; empty: all that carry GPUs.

    Raises:
        ValueError: one is not known.
    """
    every = [kind for kind in instance_types().values() if kind.gpus]
    if not types:
        return every
    found: dict[str, InstanceType] = {}
    for word in filter(None, (word.strip() for word in types.split(","))):
        family = [kind for kind in every if kind.name.partition(".")[0] == word]
        found |= {kind.name: kind for kind in family or [instance_type(word)]}
    return list(found.values())


def show_advice(wish: Wish, types: str, screen: Screen, *, json: bool) -> None:
    """Print every way, ranked, and the arithmetic of the cheapest."""
    found = list(plans(wish, candidates(types), records_here()))
    names = [kind.name for kind, plan in found if plan.possible]
    listed, spot, region, notes = _asked(names, screen)
    ways = options(wish, found, listed, spot, region)
    cannot = [(kind.name, plan.why) for kind, plan in found if not plan.possible]
    if json:
        told = {"model": wish.model.name, "tokens": wish.tokens, "for": "training" if wish.train else "serving",
                "region": region, "options": [way.as_json() for way in ways], "impossible": dict(cannot),
                "notes": list(notes)}  # fmt: skip
        print(documents.dumps(told, indent=1))
        return
    if not ways:
        raise Problem(f"none of {len(cannot)} types can do it: {cannot[0][0]}: {cannot[0][1]}",
                      "choose a smaller model, looser bounds or more --types")  # fmt: skip
    shown = sensible(ways)
    screen.console.print(table(wish, shown[:SHOWN]))
    best = ways[0]
    screen.note(f"The cheapest, {best.type} {best.market}, line by line:")
    for line in (*best.plan.lines, *(() if best.plan.lines else (best.plan.why,))):
        screen.note(f"  {line}")
    for note in (*notes, *_rest(len(ways), len(shown), cannot)):
        screen.aside(note)


def sensible(ways: Sequence[Option]) -> list[Option]:
    """Ways, cheapest first, without those for which the same GPUs do the same for less on the same market."""
    kept: dict[tuple[str, str, float | None], Option] = {}
    for way in ways:
        kept.setdefault((way.gpus, way.market, way.plan.tokens_per_s), way)
    return list(kept.values())


def _asked(names: Sequence[str], screen: Screen
           ) -> tuple[Mapping[str, Price], Mapping[tuple[str, str], Price], str, tuple[str, ...]]:  # fmt: skip
    """Prices by type, spot's by type and zone, the region, and what a reader must know of them."""
    try:
        account = Account()
        account.credentials()
    except Problem as problem:
        return (
            {},
            {},
            "us-east-1",
            (f"prices of the dated table, spot unknown, for no account was asked: {problem.cause}",),
        )
    notes = []
    with screen.stage(f"asking {account.region} for prices"):
        listed, note = rates_of(account, names)
        notes += [note] if note else []
        try:
            spot = spot_prices(account, names)
        except (BotoCoreError, ClientError) as error:
            spot = {}
            notes.append(f"spot is unknown: {explain(error).cause}")
    return listed, spot, account.region, tuple(notes)


def _rest(count: int, sensible: int, cannot: Sequence[tuple[str, str]]) -> Iterator[str]:
    if count > min(sensible, SHOWN):
        larger = f"{count - sensible} of them larger sizes around the same GPUs"
        yield f"{count - min(sensible, SHOWN)} more ways with --json, {larger}"
    reasons: dict[str, list[str]] = {}
    for name, why in cannot:
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        few = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        yield f"cannot: {few}: {why}"
    yield "not counted: volumes, addresses, file system, traffic, boot; what ranks send each other, where assumed"


def table(wish: Wish, ways: Sequence[Option]) -> Table:
    """Ways for the terminal, cheapest first, with their place by hours."""
    hours = sorted({way.hours for way in ways if way.hours is not None})
    purpose = "train on" if wish.train else "serve"
    shown = Table("", "type", "GPUs", "market", "token/s", "hours", "by hours", "$/h", "$", "$/M tokens",
                  *(() if wish.train else ("TTFT", "TPOT")), "how",
                  title=f"{wish.model.name}: {purpose} {wish.tokens:,.0f} tokens", title_justify="left")  # fmt: skip
    for place, way in enumerate(ways, 1):
        plan = way.plan
        latency = () if wish.train else (_ms(plan.ttft_s), _ms(plan.tpot_s))
        shown.add_row(
            str(place), way.type, way.gpus, way.market,
            "unknown" if plan.tokens_per_s is None else f"{plan.tokens_per_s:,.0f}",
            "unknown" if way.hours is None else f"{way.hours:,.1f}",
            "–" if way.hours is None else str(hours.index(way.hours) + 1),
            "unknown" if way.usd_per_hour is None else f"{way.usd_per_hour:.3f}", dollars(way.usd),
            "unknown" if way.usd_per_million is None else f"{way.usd_per_million:.4f}", *latency, plan.why,
        )  # fmt: skip
    return shown


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:,.1f} ms"
