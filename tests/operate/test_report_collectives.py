"""The figure of collectives: all of one data type, the line of the first, and its roof alone."""

from dataclasses import replace
from xml.etree.ElementTree import Element, tostring

from labs.results import Measurement, Roof
from labs.wire import COLLECTIVES
from operate.report.collectives import collectives
from tests.operate.made_run import NO_ROOF, record

SIZES = (2**10, 2**16, 2**22)


def sized(name: str, dtype: str, size_bytes: int) -> Measurement:
    time_s = 50e-6 + size_bytes / 2e9
    return Measurement(
        name=f"{name} {size_bytes >> 10} KiB {dtype}", value=size_bytes / time_s, unit="B/s", estimator="made up",
        samples_s=(time_s, time_s), roof=Roof(value=5e9 if name == "broadcast" else 8.75e9, source="made up"),
        config={"collective": name, "bytes": size_bytes, "dtype": dtype, "rank_median_s": [time_s, time_s * 0.8]},
    )  # fmt: skip


def latency(name: str, dtype: str) -> Measurement:
    line = {"alpha_s": 50e-6, "beta": 2e9, "half_bytes": 1e5, "worst_residual": 0.07, "residuals": [0.07, 0.0, 0.0]}
    return Measurement(name=f"{name} latency {dtype}", value=51e-6, unit="s", estimator="made up", samples_s=(51e-6,),
                       no_roof_because=NO_ROOF, config={"collective": name, "dtype": dtype} | line)  # fmt: skip


def drawn(rows: list[Measurement]) -> tuple[str, str]:
    """The caption and all of it."""
    [figure] = collectives([record("collectives", rows, ranks=8)])
    caption = figure.find("figcaption")
    assert isinstance(caption, Element)
    return "".join(caption.itertext()), tostring(figure, encoding="unicode")


ROWS = [
    row for dtype in ("fp32", "bf16") for name in COLLECTIVES
    for row in (*(sized(name, dtype, size_bytes) for size_bytes in SIZES), latency(name, dtype))
]  # fmt: skip


def test_six_collectives_share_a_figure_and_the_second_data_type_stays_in_the_table() -> None:
    caption, whole = drawn(ROWS)
    assert caption == (
        "Bus bandwidth and median time over message size in fp32; the table has bf16 as well. The band spans the "
        "medians of all-reduce of the fastest and of the slowest rank; they differ most at 1 KiB, by a factor of 1.25. "
        "Dashed is α + s/β: all-reduce 50.0 µs + s ÷ 2.00 GB/s, half of that rate at 100 kB, times within 7.0 %."
    )
    for name in COLLECTIVES:
        assert whole.count(f">{name}</") == 2, "once in each drawing's legend"
    assert "roof of all-reduce 8.75 GB/s" in whole
    assert "5.00 GB/s" not in whole, "a broadcast's roof is another's"


def test_times_that_no_line_describes_have_none() -> None:
    caption, whole = drawn([replace(row, config={}) if row.unit == "s" else row for row in ROWS])
    assert "Dashed" not in caption
    assert "dashed" not in whole


def test_an_older_record_of_all_reduce_alone_is_drawn_as_it_was() -> None:
    caption, whole = drawn([sized("all-reduce", "fp32", size_bytes) for size_bytes in SIZES])
    assert caption.startswith("Bus bandwidth and median time over message size. The band spans the medians of the fast")
    assert "roof 8.75 GB/s" in whole
    assert ">all-reduce</" not in whole, "one series needs no legend"


def test_no_size_no_figure() -> None:
    assert collectives([record("collectives", [latency("all-reduce", "fp32")])]) == []
