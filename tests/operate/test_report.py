"""What the report promises its reader: everything that came back, what did not, and no number it cannot stand for."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from labs.results import BUSY, Record, Roof
from operate.problem import Problem
from operate.receipt import Receipt
from operate.report import as_json, newest_run, summary, write_report
from operate.report.quantity import dollars, duration, quantity, rounded, share, size
from operate.sweep import Sweep
from tests.operate.made_run import NO_ROOF, RUN, collectives, ddp, gemm, generate, write_run


def page(folder: Path) -> str:
    return write_report(folder).read_text()


def words(html: str) -> str:
    """The text a reader sees (and hears: alternative texts), without the style sheet."""
    heard = _Text()
    heard.feed(html)
    return " ".join(" ".join(heard.parts).split())


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._silent = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def terminal(folder: Path) -> str:
    console = Console(file=StringIO(), width=120)
    console.print(summary(folder))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def faster_than_light(record: Record) -> Record:
    """The same record with its first row at 1.34 of its roof."""
    first, *rest = record.measurements
    assert first.roof
    return replace(record, measurements=(replace(first, value=1.34 * first.roof.value), *rest))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all four workloads where all went well, with its report; tests leave it as it is."""
    records = [collectives(), ddp(), gemm("node0"), gemm("node1"), generate("node0"), generate("node1")]
    folder = write_run(tmp_path_factory.mktemp("results"), records)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def html(whole: Path) -> str:
    return (whole / "report.html").read_text()


def test_the_page_says_what_ran_where_when_and_for_how_much(html: str) -> None:
    text = words(html)
    for said in ("Lab 3. Two nodes, one cluster", RUN, "2026-11-20 14:15 UTC", "took 6 min 45 s", "2 × g6.12xlarge",
                 "NVIDIA L4", "$9.20 an hour", "$1.04", "01bfd96aa0c4", "All 4 workloads passed"):  # fmt: skip
        assert said in text


def test_a_run_on_an_endpoint_of_ones_own_is_not_said_to_have_cost_money(whole: Path, tmp_path: Path) -> None:
    assert "nobody billed it" not in words(page(whole))
    folder = shutil.copytree(whole, tmp_path / whole.name)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"endpoint": "http://localhost:5000"}))
    assert "what AWS would ask: it ran on http://localhost:5000, and nobody billed it" in words(page(folder))


def test_a_workload_shows_prediction_then_measurement_then_every_row(html: str) -> None:
    text = words(html)
    at = text.index("Matrix multiplication")
    order = [text.index(mark, at) for mark in ("2·m·n·k FLOPs", "Prediction", "Measurement", "What to look for")]
    assert order == sorted(order)
    for row in gemm().measurements:
        assert text.count(row.name) >= 2, "one row for each node"
        assert f"checked: {row.checked}" in text
    assert "At most 121 TFLOP/s (bf16 8192x8192x8192) dense bf16 peak, NVIDIA L4 datasheet" in text
    assert "No less than 47.4 ms (time per output token) memory rate, NVIDIA L4 datasheet" in text
    assert "Each rank must send 27.5 MB a step" in text


def test_every_figure_is_drawn_for_wide_and_narrow_and_has_a_text(html: str) -> None:
    for name in ("roofline", "collectives", "generation", "training"):
        for width in ("wide", "narrow"):
            assert f'<title id="alt-{name}-{width}">' in html
    assert html.count("<svg") == 8
    assert "Roof bf16: 121 TFLOP/s, memory 300 GB/s." in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)), "an id that stands twice makes one figure clip another"


def test_the_page_asks_nothing_of_anybody(html: str) -> None:
    assert "<script" not in html
    assert not re.search(r'(?:src|href)="(?!#|data:,")', html)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_the_same_folder_gives_the_same_bytes(whole: Path) -> None:
    first = (whole / "report.html").read_bytes()
    assert write_report(whole).read_bytes() == first
    assert not list(whole.glob("*.partial"))


def test_figures_are_drawn_once_and_anew_for_other_records(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = page(whole)
    whole = shutil.copytree(whole, tmp_path / whole.name)
    drawn = sorted((whole / "figures").iterdir())
    assert [path.name.partition("-")[0] for path in drawn] == ["collectives", "ddp", "gemm", "generate"]
    monkeypatch.setattr("operate.report.canvas._drawing", lambda *_: pytest.fail("drawn again"))
    assert page(whole) == first
    monkeypatch.undo()
    record = next((whole / "records").glob("gemm.*"))
    record.write_text(record.read_text().replace('"value": ', '"value": 1'))
    page(whole)
    now = sorted((whole / "figures").iterdir())
    assert (len(now), len(set(now) - set(drawn))) == (len(drawn), 1)


def test_two_commands_that_write_one_report_do_not_take_each_others_files(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shutil.copytree(whole, tmp_path / whole.name)
    expected, write = page(whole), Path.write_bytes
    for drawn in (whole / "figures").iterdir():
        drawn.unlink()

    def meanwhile(self: Path, data: bytes) -> int:
        """Just before this one moves its file into place, another command writes the whole report."""
        count = write(self, data)
        monkeypatch.setattr(Path, "write_bytes", write)
        other = threading.Thread(target=write_report, args=(whole,))
        other.start()
        other.join()
        return count

    monkeypatch.setattr(Path, "write_bytes", meanwhile)
    assert page(whole) == expected
    assert not [path for path in whole.rglob("*") if path.suffix == ".partial"]


def test_a_busy_machine_is_said_before_its_numbers(tmp_path: Path) -> None:
    said = f"{BUSY}: load 7.0 on 2 cores: times are too long, shares mean little"
    text = words(page(write_run(tmp_path, [replace(gemm(), notes=("gloo", said))], {"gemm": {"node0": 0}})))
    assert text.count(said) == 1
    at = text.index(f"Not alone on its cores. node0: {said}")
    assert at < text.index("Prediction")
    assert "node0: gloo" in text


def test_a_failed_workload_comes_first_in_verdict_and_shows_the_end_of_its_log(tmp_path: Path) -> None:
    exits: dict[str, dict[str, int | None]] = {
        "train.py": {"node0": 0, "node1": 0},
        "generate": {"node0": 0, "node1": 137},
    }
    folder = write_run(tmp_path, [generate("node0")], exits)
    log = folder / "logs" / "node1" / "generate.log"
    log.write_text(
        "\n".join(f"line {number}" for number in range(100)) + "\n\x1b[31m 10%\r100%\x1b[0m\nout of memory\n"
    )
    text = words(page(folder))
    assert "1 of 2 workloads failed: generate" in text
    assert "node1: exit code 137" in text
    assert "no record: generate.node1.json" in text
    assert "line 99 100% out of memory" in text, "colours and overwritten progress are gone"
    assert "line 70" not in text
    assert "generate begins" not in text, "the log of the node where it passed is not shown"
    assert "time per output token" in text, "what did come back is still shown"
    assert as_json(folder)["ok"] is False
    assert "node1: exit code 137" in terminal(folder)


def test_a_record_that_cannot_be_read_is_a_failure_with_its_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [gemm("node0"), gemm("node1")])
    (folder / "records" / "gemm.node1.json").write_text('{"schema": 99}')
    text = words(page(folder))
    assert "gemm.node1.json cannot be read: schema 99, this version reads 1" in text
    assert "1 of 1 workloads failed: gemm" in text


def test_a_node_that_never_told_an_exit_code_did_not_end(tmp_path: Path) -> None:
    exits = {"gemm": {"node0": 0, "node1": None}}
    folder = write_run(tmp_path, [gemm("node0")], exits, lost={"node1": "it no longer answers"})
    text = words(page(folder))
    assert "node1: did not end" in text
    assert "node1 was lost: it no longer answers" in text


def test_a_workload_that_went_on_without_a_lost_node_has_not_failed(tmp_path: Path) -> None:
    rows = [{"name": "ddp", "scope": "cluster", "restarts": 3, "exit": {"node0": 0, "node1": None}, "seconds": 43.5}]
    text = words(page(write_run(tmp_path, [ddp()], lost={"node1": "EC2 says so"}, ok=False, workloads=rows)))
    assert "node1 was lost: EC2 says so" in text
    assert "ddp went on with 1 node of 2" in text
    assert "failed" not in text
    assert "did not end" not in text


def test_a_run_without_records_says_so(tmp_path: Path) -> None:
    text = words(page(write_run(tmp_path, [])))
    assert text.count("Nothing was measured") == 2
    assert "it ended before the first one began" in text


def test_a_run_that_goes_on_is_not_called_failed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [], {"gemm": {}}, ended=None, ok=None)
    text = words(page(folder))
    assert f"Not ended yet: `fab attach --run {RUN}` comes back to it" in text
    assert "failed" not in text


def test_the_users_own_script_need_not_leave_a_record(tmp_path: Path) -> None:
    text = words(page(write_run(tmp_path, [], {"train.py": {"node0": 0, "node1": 0}})))
    assert "The workload passed" in text
    assert "no record" not in text


def test_without_run_json_the_records_still_speak(tmp_path: Path) -> None:
    gemm().write(tmp_path / "local" / "records")
    text = words(page(tmp_path / "local"))
    assert "Lab 3" in text
    assert "bf16 8192x8192x8192" in text


def test_a_broken_run_json_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [gemm()])
    (folder / "run.json").write_text("{")
    assert "run.json cannot be read" in words(page(folder))
    assert as_json(folder)["ok"] is False


def test_a_folder_that_is_no_run_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"holds neither run.json nor records: give a folder that `fab run-lab` wrote"):
        write_report(tmp_path)


def test_an_unknown_device_has_no_roof_and_the_page_says_why(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [gemm("node0", known=False)], {"gemm": {"node0": 0}}, nodes=[{"name": "node0"}])
    html = page(folder)
    text = words(html)
    assert f"No roof: {NO_ROOF}." in text
    assert f"The roof is not drawn, for it is unknown: {NO_ROOF}." in text
    assert "the roof is unknown: measured points only" in text
    assert "No roof is drawn, for the device's is unknown." in text
    assert "%" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL), "no fraction of nothing"
    assert f"no roof: {NO_ROOF}" in terminal(folder)
    assert as_json(folder)["workloads"][0]["records"][0]["measurements"][0]["fraction"] is None


def test_more_than_the_roof_is_flagged_as_a_measuring_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [faster_than_light(gemm("node0")), gemm("node1")])
    text = words(page(folder))
    assert "Measuring error: 1 value over 100 % of the roof" in text
    assert "134 % measuring error" in text
    assert "Do not use these values: bf16 1x4096x4096." in text
    assert "Nearest to its roof: 134" not in text
    assert "measuring error" in terminal(folder)
    assert as_json(folder)["workloads"][0]["suspect"] == ["bf16 1x4096x4096"]


HOSTILE = '</title><script>alert("1")</script><img src=x onerror=alert(2)>\x00'


def test_nothing_that_was_measured_becomes_markup(tmp_path: Path) -> None:
    made = gemm("node0")
    first, *rest = made.measurements
    evil = replace(first, name=HOSTILE, estimator=HOSTILE, checked=HOSTILE, roof=Roof(value=1e15, source=HOSTILE),
                   config={**first.config, "dtype": HOSTILE}, work_unit=HOSTILE)  # fmt: skip
    machine = replace(made.machine, hostname=HOSTILE, device=HOSTILE, versions={HOSTILE: HOSTILE})
    made = replace(made, measurements=(evil, *rest), machine=machine, notes=(HOSTILE,), config={HOSTILE: HOSTILE})
    exits: dict[str, dict[str, int | None]] = {"gemm": {"node0": 1}, HOSTILE: {HOSTILE[:8].replace("/", ""): 1}}
    folder = tmp_path / RUN
    made.write(folder / "records")
    (folder / "logs" / "node0").mkdir(parents=True)
    (folder / "logs" / "node0" / "gemm.log").write_text(HOSTILE)
    rows = [{"name": name, "scope": "node", "exit": codes} for name, codes in exits.items()]
    facts = {"run": HOSTILE, "lab": 3, "stack": HOSTILE, "commit": HOSTILE, "started": HOSTILE, "ended": HOSTILE,
             "nodes": [{"name": "node0", "instance_type": HOSTILE}], "workloads": rows}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts))
    receipt = {"left": [{"kind": HOSTILE}], "standing": [HOSTILE], "residual_usd_per_hour": 1.0, HOSTILE: HOSTILE}
    (folder / "receipt.json").write_text(json.dumps(receipt))
    html = page(folder)
    assert "<script" not in html
    assert "<img" not in html
    assert "\x00" not in html
    assert "&lt;script&gt;alert(" in html
    assert set(_tags(html)) & {"script", "img", "iframe", "object", "embed"} == set()


def _tags(html: str) -> Iterator[str]:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append(tag)  # type: ignore[method-assign]
    parser.feed(html)
    yield from found


def found(kind: str, id: str, usd_per_hour: float | None = 0.0, **given: str) -> dict[str, object]:
    return {"kind": kind, "id": id, "stack": "Lab3Stack", "usd_per_hour": usd_per_hour, **given}


RECEIPT: dict[str, object] = {
    "schema": 1, "run": RUN, "stack": "Lab3Stack", "region": "us-east-1", "started": "2026-11-20T14:02:10+00:00",
    "ended": "2026-11-20T14:31:00+00:00", "usd_per_hour": 9.204, "estimate_usd": 36.82, "actual_usd": 4.42,
    "created": [found("instance", "i-0"), found("instance", "i-1"), found("vpc", "vpc-1")], "left": [], "refused": [],
    "standing": [found("stack", "GuardStack", 0.0001, why="the guard stays while labs come and go")],
    "not_looked_at": {}, "residual_usd_per_hour": 0.0, "clean": True, "suspects": [], "frozen": "2026-11-20T14:05:00Z",
    "planned_hours": 4.0, "lived_hours": 0.48, "difference_percent": -88.0, "lines": [],
    "notes": ["spot: at most this"],
}  # fmt: skip


def with_receipt(results: Path, **changes: object) -> Path:
    """A run of the user's own script (no figure to draw), with a receipt."""
    folder = write_run(results, [], {"train.py": {"node0": 0, "node1": 0}})
    (folder / "receipt.json").write_text(json.dumps(RECEIPT | changes))
    return folder


def test_the_receipt_ends_the_page(tmp_path: Path) -> None:
    folder = with_receipt(tmp_path)
    text = words(page(folder))
    end = text[text.rindex("Receipt") :]
    for said in ("$0.00 an hour still bills: nothing of the lab is left", "Estimate $36.82 for 4.00 h",
                 "Actual $4.42 for 0.480 h, -88 %", "Of these amounts spot: at most this",
                 "It had 2 instance, 1 vpc", "Lab3Stack in us-east-1",
                 "Stands on purpose stack · GuardStack, $0.0001 an hour the guard stays"):  # fmt: skip
        assert said in end
    assert "Left behind" not in end
    assert "$0.00/h still billing" in terminal(folder)


def test_the_receipt_that_operate_writes_is_the_one_the_page_reads() -> None:
    assert set(RECEIPT) == {*Receipt(**_EMPTY).as_json()}


_EMPTY: dict[str, Any] = {
    "run": "", "stack": "", "region": "", "started": "", "ended": "", "usd_per_hour": None, "estimate_usd": None,
    "actual_usd": None, "created": (), "sweep": Sweep(region="", left=(), standing=(), not_looked_at={}),
}  # fmt: skip


def test_what_is_left_is_named_with_its_price_and_what_removes_it(tmp_path: Path) -> None:
    left = [found("volume", "vol-1", 0.02, command="aws ec2 delete-volume --volume-id vol-1")]
    text = words(page(with_receipt(tmp_path, left=left, residual_usd_per_hour=0.02, clean=False)))
    assert "$0.0200 an hour still bills. Tear it down again, or by hand." in text
    assert "Left behind volume · vol-1, $0.0200 an hour aws ec2 delete-volume --volume-id vol-1" in text


def test_what_could_not_be_looked_at_is_not_called_zero(tmp_path: Path) -> None:
    unseen = {"file-system": "AccessDenied"}
    folder = with_receipt(tmp_path, not_looked_at=unseen, residual_usd_per_hour=None, clean=False)
    text = words(page(folder))
    assert "Unknown what still bills: not everything could be looked at and priced." in text
    assert "Could not be looked at file-system: AccessDenied" in text
    assert "$0.00 an hour" not in text[text.rindex("Receipt") :]
    assert "receipt: unknown what still bills" in terminal(folder)


def test_without_a_receipt_the_page_says_how_to_get_one(html: str) -> None:
    assert "No receipt yet: the lab may still be standing. fab teardown --lab 3 writes one." in words(html)


def test_json_holds_every_record_and_the_verdict(whole: Path) -> None:
    document = json.loads(json.dumps(as_json(whole)))
    assert document["verdict"] == "All 4 workloads passed"
    assert [row["name"] for row in document["workloads"]] == ["collectives", "ddp", "gemm", "generate"]
    assert [len(row["records"]) for row in document["workloads"]] == [1, 1, 2, 2]


def test_the_newest_run_is_the_last_by_name_and_of_the_lab(tmp_path: Path) -> None:
    for name in (
        "20261120-141503-lab3",
        "20261121-090000-lab1",
        "20261119-235959-lab3",
        "notes-lab3",
        "20261122-1-lab3",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "20261123-000000-lab1").touch()
    assert newest_run(tmp_path, 3).name == "20261120-141503-lab3"
    assert newest_run(tmp_path, None).name == "20261121-090000-lab1"
    with pytest.raises(Problem, match="holds no run of lab 4: run one first, for example `fab run-lab --lab 4`"):
        newest_run(tmp_path, 4)
    with pytest.raises(Problem, match=r"holds no run: run one first"):
        newest_run(tmp_path / "absent", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (quantity(12.34e9, "FLOP/s"), "12.3 GFLOP/s"),
        (quantity(999.6e9, "FLOP/s"), "1.00 TFLOP/s"),
        (quantity(989.4e12, "FLOP/s"), "989 TFLOP/s"),
        (quantity(0.0, "B/s"), "0 B/s"),
        (quantity(3.86e-5, "s"), "38.6 µs"),
        (quantity(5400, "s"), "5,400 s"),
        (quantity(12345.6, "token/s"), "12,346 token/s"),
        (quantity(38.25, "token/s"), "38.2 token/s"),
        (quantity(float("nan"), "B/s"), "nan B/s"),
        (quantity(-2.5e-3, "s"), "-2.50 ms"),
        (rounded(0.01234), "0.0123"),
        (size(1 << 20), "1 MiB"),
        (size(1_000_000), "1.00 MB"),
        (size(512), "512 B"),
        (share(0.842), "84 %"),
        (share(1.0), "100 %"),
        (share(0.00031), "0.031 %"),
        (dollars(0), "$0.00"),
        (dollars(0.0123), "$0.0123"),
        (dollars(1234.5), "$1,234.50"),
        (duration(0.85), "850 ms"),
        (duration(405), "6 min 45 s"),
        (duration(12000), "3 h 20 min"),
    ],
)
def test_numbers_read_the_same_everywhere(text: str, expected: str) -> None:
    assert text == expected
