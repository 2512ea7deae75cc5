"""The receipt at the end of the page: what the lab cost, what is left of it, what stands on purpose."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard
from xml.etree.ElementTree import Element

from operate.report.element import el
from operate.report.folder import Run
from operate.report.quantity import dollars, rounded

Found = Mapping[str, Any]
"""One thing in the account, as `operate.receipt` writes it: kind, id, state, usd_per_hour, command, why."""


def receipt_section(run: Run) -> Element:
    """The section, or one line that says how to get a receipt."""
    receipt = run.receipt
    if receipt is None:
        number = "" if run.lab is None else f" --lab {run.lab}"
        command = el("code", f"fab teardown{number}")
        text = el("p", "No receipt yet: the lab may still be standing. ", command, " writes one.")
        return el("section", el("h2", "Receipt"), text, class_="receipt", id="receipt")
    keys = ("left", "standing", "suspects", "created")
    left, standing, suspects, created = (_found(receipt, key) for key in keys)
    times = " – ".join(str(receipt[key])[:16].replace("T", " ") for key in ("started", "ended") if receipt.get(key))
    facts = {
        "Stack": " in ".join(str(receipt[key]) for key in ("stack", "region") if receipt.get(key)),
        "Stood (UTC)": times,
        "Price": _price(receipt.get("usd_per_hour")),
        "Estimate": _over(receipt, "estimate_usd", "planned_hours"),
        "Actual": _over(receipt, "actual_usd", "lived_hours") + _difference(receipt.get("difference_percent")),
        "It had": ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(map(_kind, created)).items())),
    }
    return el(
        "section",
        el("h2", "Receipt"),
        _residual(receipt, left),
        el(
            "dl",
            *(el("div", el("dt", name), el("dd", told or "not told")) for name, told in facts.items()),
            class_="facts",
        ),
        _listing("Left behind", [_line(item, "command") for item in left], "bad"),
        _listing("Could not be looked at", _reasons(receipt.get("not_looked_at")), "bad"),
        _listing("Refused", [str(line) for line in receipt.get("refused") or ()], "bad"),
        _listing("Made by hand meanwhile, and left alone", [_line(item, "why") for item in suspects], ""),
        _listing("Stands on purpose", [_line(item, "why") for item in standing], ""),
        _listing("Of these amounts", [str(line) for line in receipt.get("notes") or ()], ""),
        class_="receipt",
        id="receipt",
    )


def _residual(receipt: Mapping[str, Any], left: Sequence[Found]) -> Element:
    residual, unseen = receipt.get("residual_usd_per_hour"), receipt.get("not_looked_at")
    clean = residual == 0 and not left and not unseen
    figure = f"{dollars(float(residual or 0))} an hour" if _number(residual) else "Unknown"
    words = "still bills: nothing of the lab is left." if clean else "still bills. Tear it down again, or by hand."
    if not _number(residual):
        words = "what still bills: not everything could be looked at and priced."
    return el("p", el("strong", figure), " ", words, class_=f"residual {'good' if clean else 'bad'}")


def _found(receipt: Mapping[str, Any], key: str) -> list[Found]:
    return [item for item in receipt.get(key) or () if isinstance(item, Mapping)]


def _kind(item: Found) -> str:
    return str(item.get("kind", "thing"))


def _line(item: Found, last: str) -> Element:
    """One thing: what it is, what it costs, and what removes it or why it stands."""
    words = [str(item[key]) for key in ("kind", "id", "state") if item.get(key)]
    more = str(item.get(last) or "")
    small = el("span", el("code", more) if last == "command" else more, class_="small") if more else None
    return el("li", f"{' · '.join(words)}, {_price(item.get('usd_per_hour'))}", small)


def _reasons(found: object) -> list[str]:
    return [f"{kind}: {why}" for kind, why in found.items()] if isinstance(found, Mapping) else []


def _listing(title: str, entries: Sequence[Element | str], tone: str) -> Element | None:
    if not entries:
        return None
    items = (entry if isinstance(entry, Element) else el("li", entry) for entry in entries)
    return el("div", el("h3", title), el("ul", *items), class_=f"listing {tone}".strip())


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _over(receipt: Mapping[str, Any], amount: str, hours: str) -> str:
    """An amount and the hours that it is for."""
    usd, span = receipt.get(amount), receipt.get(hours)
    told = dollars(float(usd)) if _number(usd) else "unknown"
    return f"{told} for {rounded(float(span), 3)} h" if _number(span) else told


def _difference(percent: object) -> str:
    return f", {percent:+.0f} %" if isinstance(percent, int | float) else ""


def _price(value: Any) -> str:
    return f"{dollars(float(value))} an hour" if _number(value) else "price unknown"
