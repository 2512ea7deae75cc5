"""The figure of what fits: every way, its total, and whether it fits, said in words as well."""

from xml.etree import ElementTree

from labs.results import Machine, Measurement, Record, Roof
from operate.report.memory import memory

GIB = 2**30


def way(name: str, states: int, answer: str) -> Measurement:
    config = {"model": "mistral-7b", "purpose": "train", "way": name, "answer": answer, "batch": 1, "context": 4096,
              "capacity_bytes": 22 * GIB, "place": "4 × L4",
              "parts": {"weights": states * GIB, "activations": GIB}}  # fmt: skip
    roof = Roof(value=22 * GIB, source="EC2") if answer != "no" else None
    return Measurement(name=name, value=(states + 1) * GIB, unit="B", estimator="predicted", config=config, roof=roof,
                       no_roof_because="" if roof else "it does not fit")  # fmt: skip


def test_what_does_not_fit_is_cut_and_said() -> None:
    machine = Machine(hostname="node0", device="CPU", devices=1)
    rows = (way("ddp over 4", 120, "no"), way("fsdp over 4", 13, "fits"))
    (figure,) = memory([Record(workload="fits", machine=machine, measurements=rows)])
    text = ElementTree.tostring(figure, encoding="unicode")
    assert "train, ddp over 4: 121.0 GiB, does not fit; train, fsdp over 4: 14.0 GiB, fits." in text
    assert "the line is what it has, 22.0 GiB. A bar that is cut" in text
    assert memory([Record(workload="fits", machine=machine, measurements=())]) == []
