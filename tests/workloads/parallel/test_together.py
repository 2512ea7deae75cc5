"""Four real ranks on this machine's CPU: every workload of Lab 2 trains like one process and writes its record."""

import pytest

from labs.results import Record, read
from labs.scaling import law_speedup
from labs.traffic import fully_sharded, hybrid_sharded, tensor_decode
from tests.workloads.launching import torchrun
from tests.workloads.parallel.small import SMALL
from workloads.parallel.grid import grid_traffic

LIMIT_S = 850.0
"""Some twenty seconds of work for two cores; they may be shared with much else."""
pytestmark = pytest.mark.timeout(900)
WORKLOADS = ("split-gemm", "fsdp", "tensor-parallel", "mesh", "scaling")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Record]]:
    """What was printed, and the records."""
    out = tmp_path_factory.mktemp("records")
    outcome = torchrun(4, "-m", "tests.workloads.parallel.together", str(out), ROOFLAB_USD_PER_HOUR="3.6",
                       limit_s=LIMIT_S)  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout, {name: read(out / f"{name}.json") for name in WORKLOADS}


def test_every_record_is_of_four_ranks_with_times_taken_apart(launched: tuple[str, dict[str, Record]]) -> None:
    for record in launched[1].values():
        assert (record.ranks, record.machine.devices) == (4, 4)
        apart = [row for row in record.measurements if row.spans]
        assert apart
        for row in apart:
            whole = sum(span.seconds for span in row.spans)
            assert whole == pytest.approx(row.value if row.unit == "s" else row.config["step_s"])
            assert all(span.seconds >= 0 for span in row.spans)
            assert row.checked


def test_losses_and_gradients_are_one_processs(launched: tuple[str, dict[str, Record]]) -> None:
    for name in ("fsdp", "tensor-parallel", "mesh"):
        steps = [row for row in launched[1][name].measurements if "parity_losses" in row.config]
        assert steps
        for row in steps:
            assert row.config["parity_losses"] == pytest.approx(row.config["parity_alone"], rel=1e-5)
            assert row.config["parity_losses"][-1] < row.config["parity_losses"][0]
            assert row.config["losses"][-1] < row.config["losses"][0]


def test_bytes_are_counted_as_predicted(launched: tuple[str, dict[str, Record]]) -> None:
    records = launched[1]
    for record in records.values():
        for row in record.measurements:
            if row.name.startswith("sent"):
                assert row.expected is not None
                assert row.value == row.expected.value == row.config["predicted_bytes_per_rank"]
    first = {name: record.measurements[2].value for name, record in records.items() if name in ("fsdp", "mesh")}
    assert first["fsdp"] == fully_sharded(SMALL, 4, size=4).sent_bytes
    hybrid = next(row for row in records["fsdp"].measurements if row.name == "sent, hybrid over 2 nodes")
    assert hybrid.value == hybrid_sharded(SMALL, 2, 2, size=4).sent_bytes
    assert hybrid.config["shards"] == 2
    assert first["mesh"] == grid_traffic(SMALL, 2, 2, 4 * 16, size=4).sent_bytes
    copies = next(row for row in records["mesh"].measurements if row.name == "sent, 2 × 2, copies")
    assert copies.value == grid_traffic(SMALL, 2, 2, 4 * 16, size=4, copies=True).sent_bytes < first["mesh"]
    decode = next(row for row in records["tensor-parallel"].measurements if row.name == "decode: sent")
    assert decode.value == tensor_decode(SMALL, 4, 1, size=4).sent_bytes


def test_tokens_are_counted_once(launched: tuple[str, dict[str, Record]]) -> None:
    for name in ("fsdp", "tensor-parallel", "mesh"):
        training, step = launched[1][name].measurements[:2]
        assert training.config["tokens_per_step"] == 4 * 16
        assert training.value == pytest.approx(64 / step.value)
        assert training.usd_per_unit == pytest.approx(3.6 / 3600 / training.value * 1e6)


def test_both_laws_are_fitted_to_what_was_measured(launched: tuple[str, dict[str, Record]]) -> None:
    rows = launched[1]["scaling"].measurements
    points = {(row.config["kind"], row.config["ranks"]): row for row in rows if "speedup" in row.config}
    assert set(points) == {(kind, ranks) for kind in ("strong", "weak") for ranks in (1, 2, 3, 4)}
    for (kind, ranks), row in points.items():
        one = points[kind, 1]
        assert row.config["tokens_per_step"] == (12 * 16 if kind == "strong" else 3 * 16 * ranks)
        assert row.config["speedup"] == pytest.approx(row.config["tokens_per_s"] / one.config["tokens_per_s"])
        assert row.config["losses"][0] == pytest.approx(points[kind, 4].config["losses"][0], rel=0.2)
    assert points["strong", 4].samples_s == points["weak", 4].samples_s, "one and the same measurement"
    for law, kind in (("Amdahl", "strong"), ("Gustafson", "weak")):
        fit = next(row for row in rows if row.name == f"{law}: serial share")
        for ranks, over in fit.config["residuals"].items():
            measured = points[kind, int(ranks)].config["speedup"]
            assert measured - over == pytest.approx(law_speedup(law, fit.value, int(ranks)))


def test_what_is_printed_is_predicted_first(launched: tuple[str, dict[str, Record]]) -> None:
    lines = launched[0].splitlines()
    sent = fully_sharded(SMALL, 4, size=4).sent_bytes / 1e6
    predicted = next(index for index, line in enumerate(lines) if line.startswith("predicted: layers gathered twice"))
    measured = next(index for index, line in enumerate(lines) if line.startswith("layers gathered twice: step"))
    assert predicted < measured
    assert f"each of 4 ranks sends {sent:.2f} MB a step" in lines[predicted]
    assert any("reduce-scatter as an all-reduce" in note for note in launched[1]["fsdp"].notes)
    assert any(line.startswith("by columns, all-gather") for line in lines)
