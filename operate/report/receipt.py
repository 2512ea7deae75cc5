"""The receipt at the end of the page: what it cost, what is left, what stands on purpose."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from operate.report.element import el
from operate.report.folder import Run
from operate.report.quantity import dollars

_NAMED = ("residual_usd_per_hour", "estimate", "cost", "created", "left", "standing")
"""What the section says in its own words; every other plain value of the receipt is listed as it is."""


def receipt_section(run: Run) -> Element:
    """The section, or one line that says how to get a receipt."""
    receipt = run.receipt
    if receipt is None:
        number = "" if run.lab is None else f" --lab {run.lab}"
        command = el("code", f"fab teardown{number}")
        text = el("p", "No receipt yet: the lab may still be standing. ", command, " writes one.")
        return el("section", el("h2", "Receipt"), text, class_="receipt", id="receipt")
    residual = receipt.get("residual_usd_per_hour")
    left = _entries(receipt.get("left"))
    clean = residual == 0 and not left
    figure = "unknown" if not isinstance(residual, int | float) else f"{dollars(float(residual))} an hour"
    words = "still bills: nothing of the lab is left" if clean else "still bills: tear it down again, or by hand"
    facts = [(name, _amount(receipt.get(key))) for name, key in (("Estimate", "estimate"), ("Actual", "cost"))]
    created = receipt.get("created")
    if created is not None:
        facts.append(("Created", f"{len(_entries(created))} resources"))
    facts += [(_words(key), str(value)) for key, value in receipt.items() if key not in _NAMED and _plain(value)]
    return el(
        "section",
        el("h2", "Receipt"),
        el("p", el("strong", figure), " ", words, class_=f"residual {'good' if clean else 'bad'}"),
        el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts), class_="facts"),
        _listing("Left behind", left, "bad"),
        _listing("Stands on purpose", _entries(receipt.get("standing")), ""),
        class_="receipt",
        id="receipt",
    )


def _listing(title: str, entries: Sequence[str], tone: str) -> Element | None:
    if not entries:
        return None
    return el(
        "div", el("h3", title), el("ul", *(el("li", entry) for entry in entries)), class_=f"listing {tone}".strip()
    )


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _words(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _amount(value: object) -> str:
    """Dollars from a bare number, or from the first amount that a mapping names."""
    if isinstance(value, Mapping):
        value = next((amount for name, amount in value.items() if str(name).endswith("usd")), None)
    return dollars(float(value)) if isinstance(value, int | float) else "unknown"


def _entries(value: object) -> list[str]:
    """A list of resources, each as one line; a mapping gives "key: value"."""
    if isinstance(value, Mapping):
        return [f"{key}: {entry}" for key, entry in value.items()]
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [_entry(entry) if isinstance(entry, Mapping) else str(entry) for entry in value]


def _entry(entry: Mapping[str, Any]) -> str:
    words = [str(entry[key]) for key in ("kind", "type", "id", "name", "what", "why") if entry.get(key)]
    price = entry.get("usd_per_hour")
    text = " · ".join(words) or ", ".join(f"{key}={value}" for key, value in entry.items())
    return text if not isinstance(price, int | float) else f"{text} ({dollars(float(price))} an hour)"
