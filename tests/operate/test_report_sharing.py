"""The figures of shared work: bars that add up, a trace, both scaling laws with their residuals."""

from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from labs.results import Measurement, Record, Roof, Span
from operate.report.sharing import sharing, speedup
from tests.operate.made_run import NO_ROOF, record

STRIP = {"step_s": 0.4, "compute": [[0.0, 0.3]], "communication": [[0.2, 0.35]]}


def row(name: str, parts: tuple[float, float, float], **given: object) -> Measurement:
    names = ("arithmetic", "exposed communication", "idle: Python and waiting")
    spans = tuple(Span(name=name, seconds=part, how="measured") for name, part in zip(names, parts, strict=True))
    made = Measurement(name=name, value=sum(parts), unit="s", estimator="median of 9", no_roof_because=NO_ROOF,
                       samples_s=(sum(parts),), spans=spans)  # fmt: skip
    return replace(made, **given)  # type: ignore[arg-type]


def strategies() -> Record:
    expected = Roof(value=0.5, source="one rank alone, then its bytes")
    return record("fsdp", (
        row("step", (0.3, 0.05, 0.05), config={"strategy": "layers gathered twice", "strip": STRIP,
                                              "shares": {"overlap": 0.667}}, expected=expected),
        row("step, kept", (0.3, 0.02, 0.08), config={"strategy": "layers kept"}),
        Measurement(name="sent", value=3.0, unit="B", estimator="counted", no_roof_because="bytes are counted"),
    ), ranks=4)  # fmt: skip


def text_of(figures: list[Element]) -> str:
    return " ".join(" ".join(figure.itertext()) for figure in figures)


def test_bars_and_trace_tell_each_way_and_what_is_hidden() -> None:
    drawn = sharing([strategies()])
    assert [figure.get("id") for figure in drawn] == ["figure-sharing-fsdp", "figure-trace-fsdp"]
    words = text_of(drawn)
    assert "layers gathered twice: 400 ms, of it 75 % arithmetic, 13 % exposed communication, 13 % idle." in words
    assert "layers kept: 400 ms, of it 75 % arithmetic, 5.0 % exposed communication, 20 % idle." in words
    assert "expected, nothing hidden" in words
    assert "arithmetic for 300 ms, communication for 150 ms" in words
    assert "Over all ranks 67 % of the communication is hidden." in words
    assert ElementTree.tostring(drawn[0]) == ElementTree.tostring(sharing([strategies()])[0]), (
        "the same bytes each time"
    )


def test_every_ways_losses_lie_on_one_processs_line() -> None:
    alone = [6.9, 6.5, 6.1]
    made = strategies()
    rows = [replace(row, config={**row.config, "parity_alone": alone, "parity_losses": [6.9, 6.5, 6.1 * (1 + apart)]})
            for row, apart in zip(made.measurements[:2], (0.0, 1e-6), strict=True)]  # fmt: skip
    drawn = sharing([replace(made, measurements=tuple(rows))])
    assert [figure.get("id") for figure in drawn][-1] == "figure-losses-fsdp"
    words = text_of(drawn[-1:])
    assert "Losses of one process: 6.900, 6.500, 6.100. Of 2 ways to share the work: at most 1e-06 apart" in words
    assert all(name in words for name in ("one process", "layers gathered twice", "layers kept"))


def test_a_split_products_rate_is_drawn_as_its_time() -> None:
    spans = (Span(name="product of a rank's share", seconds=0.003, how="measured"),
             Span(name="exposed communication", seconds=0.001, how="measured"))  # fmt: skip
    way = Measurement(name="by rows, all-reduce", value=1e9, unit="FLOP/s", estimator="median", spans=spans,
                      no_roof_because=NO_ROOF, config={"way": "by rows, all-reduce"},
                      expected=Roof(value=2e9, source="half"))  # fmt: skip
    (drawn,) = sharing([record("split-gemm", (way,), ranks=4)])
    words = text_of([drawn])
    assert "by rows, all-reduce: 4.00 ms, of it 75 % arithmetic, 25 % exposed communication, 0 % idle." in words
    assert "expected, nothing hidden" in words


def test_rows_without_parts_draw_nothing() -> None:
    plain = Measurement(name="latency", value=1.0, unit="s", estimator="median", no_roof_because=NO_ROOF)
    assert sharing([record("mesh", (plain,))]) == []
    assert speedup([record("scaling", (plain,))]) == []


def points() -> Record:
    made = []
    for kind, gains in (("strong", {1: 1.0, 2: 1.8, 4: 2.9}), ("weak", {1: 1.0, 2: 1.9, 4: 3.6})):
        for ranks, gain in gains.items():
            config = {"kind": kind, "ranks": ranks, "speedup": gain, "law": gain - 0.05}
            made.append(row(f"{kind}, {ranks} ranks", (0.3 / ranks, 0.02, 0.01), config=config))
        law = "Amdahl" if kind == "strong" else "Gustafson"
        made.append(Measurement(
            name=f"{law}: serial share", value=0.127, unit="of the work", estimator="least squares over 2 points",
            no_roof_because="a fitted law, not a measurement", config={"kind": kind, "law": law, "exact": False},
        ))  # fmt: skip
    return record("scaling", made, ranks=4)


def test_both_laws_stand_beside_the_measurement_and_the_ideal() -> None:
    drawn = speedup([points()])
    assert [figure.get("id") for figure in drawn] == ["figure-scaling", "figure-sharing-scaling-parts"]
    words = text_of(drawn)
    for said in ("ideal", "Amdahl", "Gustafson", "Amdahl: 13 % does not spread.", "measured", "weak, 4 ranks"):
        assert said in words
    assert "strong, 4 ranks: 105 ms a step, 2.90 times one rank." in words


def test_one_rank_alone_has_no_law_to_draw() -> None:
    alone = row("strong, 1 rank", (0.3, 0.0, 0.01), config={"kind": "strong", "ranks": 1, "speedup": 1.0, "law": None})
    assert speedup([record("scaling", (alone,))]) == []
