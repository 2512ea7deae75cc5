"""The ratios on a CPU: interleaved, from what both sides print, and a failure is one line."""

import pytest

from benchmarks import ratios
from labs.results import Machine, Measurement, Record
from operate.problem import Problem

MACHINE = Machine(hostname="one", device="CPU", devices=1)


def row(value: float, unit: str = "B/s", **config: object) -> Measurement:
    """A rate, by samples of which the first is the best."""
    return Measurement(name="a", value=value, unit=unit, estimator="", no_roof_because="made up",
                       samples_s=(1.0, 2.0), config={"bytes": value, **config})  # fmt: skip


def test_every_ratio_is_of_medians_of_interleaved_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def ours(module: str, *_words: str) -> Record:
        order.append(module)
        rows = (row(9e9, kernel="triad", past_cache=False), row(4e9, kernel="triad", past_cache=True),
                row(5e9, kernel="read", past_cache=True)) if module == "bandwidth" else (
                    row(3000.0, "token/s"), row(7e7, "B", batch=1))  # fmt: skip
        return Record(workload=module, machine=MACHINE, measurements=rows)

    def figure(module: str, *words: str) -> float:
        order.append(f"{module.split('.')[-1]} {words[0]}")
        return {"triad": 5e9, "dot": 5e9, "--plain": 2000.0}[words[0]]

    monkeypatch.setattr(ratios, "_ours", ours)
    monkeypatch.setattr(ratios, "_figure", figure)
    triad, read, training = ratios.run()
    assert order == ["bandwidth", "stream triad", "stream dot", "train_step", "hf_trainer --plain"] * ratios.ROUNDS
    assert triad.ratio == pytest.approx(0.8)
    assert triad.met is False
    assert read.ratio == pytest.approx(1.0)
    assert read.met is True
    assert training.ratio == pytest.approx(1.5)
    assert training.met is True
    assert training.samples_s == (pytest.approx(1 / 3),) * ratios.ROUNDS


def test_a_program_that_fails_is_named_with_its_last_line() -> None:
    with pytest.raises(Problem, match=r"^python -m benchmarks.peers.stream nothing ended with 2: stream: error: "):
        ratios._figure("benchmarks.peers.stream", "nothing")
