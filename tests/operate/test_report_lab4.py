"""The figures of Lab 4: storage beside what is documented, loads beside their slowest link, cost over waiting."""

import re
from typing import Any

from labs.results import Measurement, Record, Roof
from operate.report.element import document, el
from operate.report.frontier import frontier
from operate.report.lessons import LESSONS
from operate.report.storage import storage, weights
from tests.operate.made_run import NO_ROOF, record

BOUGHT = Roof(value=234e6, source="scratch: 200 MB/s a TiB")


def words(elements: list[Any]) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document(el("div", *elements))))


def row(name: str, value: float, unit: str, roof: Roof | None = None, **config: Any) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, estimator="from the median of 3", samples_s=(1.0,), roof=roof,
                       no_roof_because="" if roof else NO_ROOF, config=config)  # fmt: skip


def disks() -> Record:
    rows = []
    for place, roof in (("lustre /fsx", BOUGHT), ("nvme /opt/dlami/nvme", None)):
        rows += [
            row(f"{place}: write", 110e6, "B/s", roof, place=place, op="write", cache="durable", by="rooflab"),
            row(f"{place}: read", 225e6, "B/s", roof, place=place, op="read", cache="cold", by="rooflab"),
            row(f"{place}: read", 230e6, "B/s", roof, place=place, op="read", cache="cold", by="fio"),
            row(f"{place}: read", 9e9, "B/s", None, place=place, op="read", cache="warm", by="rooflab"),
            row(f"{place}: random", 41_234, "read/s", None, place=place, op="random read", cache="cold", by="rooflab"),
            row(f"{place}: small", 512, "file/s", None, place=place, op="read small", cache="cold", by="rooflab"),
        ]
    return record("storage", rows, node="node0")


def test_each_place_has_its_bars_and_the_mark_of_what_was_bought() -> None:
    lustre, nvme = storage([disks()])
    text = words([lustre])
    assert "lustre /fsx: cold is past the page cache, warm through it; the mark is what AWS documents." in text
    assert "No mark" not in text
    assert "read, cold (fio) 230 MB/s" in text
    assert "random read, cold 41,234 read/s" in text
    assert "41,234" in text
    assert f"No mark: {NO_ROOF}." in words([nvme])


def test_storage_without_places_draws_nothing() -> None:
    assert storage([record("storage", (), node="node0")]) == []


def test_loads_stand_beside_the_slowest_link() -> None:
    rows = []
    for cache, most in (("cold", 1.2e9), ("warm", 9e9)):
        for way, share in (("rooflab", 0.97), ("safetensors mmap", 0.3)):
            made = row(f"{way}, {cache}", share * most, "B/s", way=way, cache=cache)
            rows.append(Measurement(**{**made.__dict__, "others": (Roof(value=most, source="measured here"),)}))
    text = words(weights([record("weights", rows, node="node0")]))
    assert "cold: at most 1.20 GB/s" in text
    assert "warm: at most 9.00 GB/s" in text
    assert "safetensors mmap, cold 360 MB/s" in text
    assert weights([record("weights", rows[:0], node="node0")]) == []


def batches(priced: bool) -> Record:
    rows = []
    for kind, batch, rate, wait in (
        ("static", 1, 300.0, 3e-3),
        ("static", 8, 900.0, 5e-3),
        ("continuous", 8, 1500.0, 6e-3),
    ):
        made = row(f"{kind} {batch}", rate, "token/s", None, kind=kind, batch=batch, tpot_s=wait)
        usd = {"usd_per_unit": 0.8 / 3600 / rate * 1e6, "work_unit": "million tokens"} if priced else {}
        rows.append(Measurement(**{**made.__dict__, **usd}))
    return record("batching", rows, node="node0")


def test_the_frontier_is_dollars_over_waiting() -> None:
    text = words(frontier([batches(priced=True)]))
    assert "Dollars for a million tokens over the time of each token." in text
    assert "continuous 8: 6.00 ms a token, $0.15" in text
    assert "$ per million tokens" in text


def test_without_a_price_it_is_hours_and_says_why() -> None:
    text = words(frontier([batches(priced=False)]))
    assert "Hours of the machine (its price is not known) for a million tokens" in text
    assert "static 1: 3.00 ms a token, 0.926 h" in text
    assert frontier([record("batching", batches(priced=True).measurements[:1], node="node0")]) == []


def test_each_of_them_has_its_lesson() -> None:
    assert {"storage", "weights", "batching"} <= set(LESSONS)
    assert all(LESSONS[name].next for name in ("storage", "weights", "batching"))
