"""The figures and tables of Lab 1: both roofs, dots, predicted beside measured, and limits beside the roof."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labs.results import Measurement, Record, Roof
from operate.report.bandwidth import bandwidth
from operate.report.clock import clock
from operate.report.element import document, el
from operate.report.operations import operations
from operate.report.page import write_report
from operate.report.roofline import roofline
from operate.report.waves import waves
from tests.operate.made_run import NO_ROOF, record, write_run

SHEET = Roof(value=300e9, source="memory rate, NVIDIA L4 datasheet")


def rates(known: bool = True) -> Record:
    rows = []
    for power in (20, 22, 24, 26, 28):
        past = power > 26
        for kernel, rate in (("read", 280e9), ("copy", 250e9), ("scale", 251e9), ("triad", 255e9)):
            roof = SHEET if past and known else None
            reason = "" if roof else NO_ROOF if past else "arrays below four times the cache are served by it"
            rows.append(Measurement(
                name=f"fp32 {kernel} {2**power >> 20} MiB", value=rate * (1 if past else 4), unit="B/s",
                estimator="from the median of 3", samples_s=(1e-3, 2e-3, 3e-3), roof=roof, no_roof_because=reason,
                config={"kernel": kernel, "by": kernel, "dtype": "fp32", "array_bytes": 2**power, "bytes": 2**power,
                        "past_cache": past, "cache_bytes": 48 * 2**20},
            ))  # fmt: skip
    return record("bandwidth", rows, node="node0")


def dot(name: str, kind: str, intensity: float, flops: float, taken_s: float, known: bool, **more: Any) -> Measurement:
    most = min(90e12, 280e9 * intensity)
    sheet = Roof(value=min(121e12, 300e9 * intensity), source="NVIDIA L4 datasheet")
    return Measurement(
        name=name, value=flops / taken_s, unit="FLOP/s", estimator="from the median of 5", samples_s=(taken_s,) * 5,
        roof=sheet if known else None, no_roof_because="" if known else NO_ROOF,
        others=(Roof(value=most, source="measured here, memory by read × intensity"),),
        config={"kind": kind, "dtype": "bf16", "intensity": intensity, "flops": flops, "bytes": flops / intensity,
                "predicted_s": flops / most, "bound_by": "memory", "times": 1, **more},
    )  # fmt: skip


def model(known: bool = True) -> Record:
    unknown = "" if known else NO_ROOF
    rows = [
        Measurement(name="ceiling: memory", value=280e9, unit="B/s", estimator="from the fastest of 5",
                    roof=SHEET if known else None, no_roof_because=unknown, config={"kind": "ceiling"}),
        Measurement(name="ceiling: bf16 products", value=90e12, unit="FLOP/s", estimator="from the fastest of 5",
                    roof=Roof(value=121e12, source="dense bf16 peak") if known else None, no_roof_because=unknown,
                    config={"kind": "ceiling", "dtype": "bf16"}),
        dot("1 × gate-up", "rows", 1.0, 235e6, 1e-3, known),
        dot("64 × gate-up", "rows", 62.0, 15e9, 1.1e-3, known),
        dot("chain of 4, fused", "fused", 1.0, 2e9, 8e-3, known),
        dot("decode gate-up", "decode", 1.0, 235e6, 1.2e-3, known, times=32),
        dot("prefill gate-up", "prefill", 900.0, 240e9, 3.2e-3, known, times=32),
        Measurement(name="mistral-7b decode step, 1024 tokens", value=38.4e-3, unit="s", estimator="sum",
                    no_roof_because=NO_ROOF, config={"kind": "step", "of": "decode", "predicted_s": 26.8e-3}),
    ]  # fmt: skip
    return record("roofline", rows, node="node0")


def words(elements: list[Any]) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document(el("div", *elements))))


def test_the_bandwidth_curve_names_the_rate_past_the_cache_and_draws_the_roof() -> None:
    text = words(bandwidth([rates()]))
    assert "Past the cache the fastest is read, 280 GB/s." in text
    assert "read from 1.12 TB/s at 1 MiB to 280 GB/s at 256 MiB" in text
    assert "roof 300 GB/s" in text
    assert "No roof" not in text
    assert f"No roof is drawn: {NO_ROOF}." in words(bandwidth([rates(known=False)]))


def test_a_curve_that_never_left_the_cache_is_not_called_the_memorys() -> None:
    made = rates()
    small = replace(made, measurements=made.measurements[:8])
    assert "No array was past the cache: none of this is the memory's rate." in words(bandwidth([small]))
    assert bandwidth([record("bandwidth", (), node="node0")]) == []


def test_both_roofs_stand_over_the_models_operations_with_their_ridges() -> None:
    text = words(operations([model()]))
    assert "Ridges: bf16 403 FLOP/B; bf16 measured 321 FLOP/B." in text
    assert "Roof bf16: 121 TFLOP/s, memory 300 GB/s. Roof bf16 measured: 90.0 TFLOP/s, memory 280 GB/s." in text
    assert "No datasheet" not in text
    alone = words(operations([model(known=False)]))
    assert "Ridges: bf16 measured 321 FLOP/B." in alone
    assert f"No datasheet's roof is drawn: {NO_ROOF}." in alone


def test_each_operations_gap_is_named_in_milliseconds_of_the_step() -> None:
    text = words(operations([model()]))
    predicted_s = 235e6 / 280e9
    assert f"decode gate-up bound by memory 32 {predicted_s * 1e6:.0f} µs 1.20 ms 70 %" in text
    assert f"{32 * (1.2e-3 - predicted_s) * 1e3:.1f} ms" in text
    assert "mistral-7b decode step, 1024 tokens – 26.8 ms 38.4 ms 70 % 11.6 ms" in text


def test_a_record_without_ceilings_draws_nothing() -> None:
    made = model()
    assert operations([replace(made, measurements=made.measurements[2:])]) == []


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of Lab 1's first workloads on a device that no datasheet is known of."""
    folder = write_run(tmp_path_factory.mktemp("results"), [rates(known=False), model(known=False)])
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", write_report(folder).read_text()))


def test_without_a_datasheet_the_measured_ceiling_is_the_prediction(text: str) -> None:
    assert "measured here, memory by read × intensity" in text
    assert "Nearest to its roof:" in text


def test_a_rate_of_the_cache_is_not_the_headline(text: str) -> None:
    assert "280 GB/s (fp32 read 256 MiB, node0) highest of 20" in text
    assert "1.12 TB/s (fp32 read" not in text


def test_the_clocks_peak_and_the_limit_stand_beside_the_roof(tmp_path: Path) -> None:
    row = Measurement(
        name="bf16 1536x2816x40960 burst", value=125e12, unit="FLOP/s", estimator="from the median of 100",
        roof=Roof(value=121e12, source="datasheet"), limit=Roof(value=130e12, source="bf16 at the top clock"),
        others=(Roof(value=126e12, source="bf16 at the measured clock of 1980 MHz"),),
    )  # fmt: skip
    shown = write_report(write_run(tmp_path, [record("gemm", [row], node="node0")])).read_text()
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))
    assert "99 % of 126 TFLOP/s b at most 130 TFLOP/s c" in shown
    assert "103 %" in shown
    assert "measuring error" not in shown.lower()


def sawtooth() -> Record:
    """Twelve rows of tiles on 132 SMs; past a full wave a library that falls less far than the model."""
    rows = []
    for n in (1408, 2112, 2816, 2832, 4224, 5632, 5648, 7040):
        tiles = 12 * -(-n // 256)
        count = -(-tiles // 132)
        flops, model_s = 2 * 1536 * n * 4096, 44e-6 * count
        taken = model_s * (1.02 if tiles == 132 * count else 0.95)
        rows.append(Measurement(
            name=f"bf16 1536x{n}x4096 burst, {tiles} tiles in {count} wave{'s' * (count > 1)}", value=flops / taken,
            unit="FLOP/s", estimator="from the median of 10", no_roof_because=NO_ROOF, samples_s=(taken,) * 10,
            config={"m": 1536, "n": n, "k": 4096, "dtype": "bf16", "regime": "burst", "kind": "wave", "tiles": tiles,
                    "waves": count, "units": 132, "model_flops": flops / model_s},
        ))  # fmt: skip
    return record("gemm", rows, node="node0")


def throttled(told: bool = True) -> Record:
    """Two data types that sink to their power cap within half a second, as NVML tells it."""
    rows = []
    for dtype, low, watts in (("bf16", 1740.0, 698.0), ("fp8", 1620.0, 701.5)):
        trace = [
            (0.0, 1980.0, 240.0),
            (0.2, 1980.0, 520.0),
            (0.5, low + 60, 680.0),
            (1.0, low, watts),
            (2.0, low, watts),
        ]
        more = {"trace": trace, "top_mhz": 1980.0, "cap_w": 700.0, "held_by": ("the power cap",)} if told else {}
        rows.append(Measurement(
            name=f"{dtype} 1536x2816x6144 sustained", value=755e12, unit="FLOP/s", estimator="from the median of 3",
            no_roof_because=NO_ROOF, config={"dtype": dtype, "regime": "sustained", "intensity": 800.0, **more},
        ))  # fmt: skip
    return record("gemm", rows, node="node0")


def test_the_sawtooth_stands_beside_its_model_and_says_what_both_lose() -> None:
    text = words(waves([sawtooth()]))
    assert "time = waves × that of a full one, 132 tiles at once. From N = 2,816 to 2,832 it falls to 50 %" in text
    assert "the measurement to 54 %: what lies above the line the library saved" in text
    assert "132 tiles, 1 full" in text
    assert "264 tiles, 2 full" in text
    assert "wave model" in text


def test_a_device_without_waves_has_no_sawtooth_and_the_sweep_stays_out_of_the_roofline() -> None:
    assert waves([throttled()]) == []
    made = sawtooth()
    assert waves([replace(made, measurements=made.measurements[:3])]) == [], "no wave ended: nothing to see"
    assert roofline([made]) == []
    both = replace(made, measurements=(*made.measurements, *throttled().measurements))
    ratio = Measurement(name="zeros over random data", value=1.1, unit="×", estimator="", no_roof_because="a ratio")
    text = words(roofline([replace(both, measurements=(*both.measurements, ratio))]))
    assert "Roofline with 2 points" in text
    assert f"for it is unknown: {NO_ROOF}." in text, "and not for the reason of a row that is no point of it"


def test_clock_and_power_are_traced_to_the_cap_that_holds_them() -> None:
    text = words(clock([throttled()]))
    assert "SM clock of bf16 from 1,980 to 1,740 MHz; SM clock of fp8 from 1,980 to 1,620 MHz" in text
    assert "power of bf16 from 240.0 to 698.0 W" in text
    assert "Held down at the end by: bf16: the power cap; fp8: the power cap." in text
    assert "top clock 1,980 MHz" in text
    assert "cap 700.0 W" in text


def test_what_a_device_does_not_tell_is_not_drawn() -> None:
    assert clock([throttled(told=False)]) == []
    made = throttled()
    first = made.measurements[0]
    silent = [(at, mhz, None) for at, mhz, _ in first.config["trace"]]
    lone = replace(first, config={**first.config, "trace": silent, "cap_w": None, "held_by": ()})
    text = words(clock([replace(made, measurements=(lone,))]))
    assert "SM clock of bf16 from" in text
    assert "power of" not in text
    assert "Held down" not in text


def test_a_gemm_section_holds_all_three_figures(tmp_path: Path) -> None:
    made = sawtooth()
    made = replace(made, measurements=(*made.measurements, *throttled().measurements))
    page = write_report(write_run(tmp_path, [made])).read_text()
    assert re.findall(r'id="figure-([a-z]+)"', page) == ["roofline", "waves", "clock"]
