"""weights: every way loads the same bits, cold is cold, ratios and floors add up, a wrong bit is found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from labs.results import Record, Roof, read
from labs.roofs import Bound
from workloads import weights
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.disk import ways
from workloads.disk.held import Made, given

NANO = ["--device", "cpu", "--model", "mistral-nano", "--repeats", "2"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A run of the smallest model."""
    out, folder = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("disk")
    weights.main([*NANO, "--path", str(folder), "--out", str(out)])
    assert list(folder.iterdir()) == []
    return read(out / "weights.node0.json")


def test_every_way_is_timed_cold_and_warm_beside_its_links(record: Record) -> None:
    links = [row.name for row in record.measurements if "link" in row.config and row.config["by"] == "rooflab"]
    assert links == ["file, cold", "file, warm"]
    loads = [row for row in record.measurements if "way" in row.config]
    names = ("rooflab", "safetensors mmap", "safetensors pread", "transformers")
    assert [row.name for row in loads] == [f"{name}, {cache}" for cache in ("cold", "warm") for name in names]
    assert {row.checked for row in loads} == {"all 39 tensors bit for bit"}
    assert all(row.config["bytes"] > 7_868_928 for row in loads)
    assert all(row.expected == row.others[0] for row in loads)


def test_a_loads_time_is_the_slowest_links_and_the_rest(record: Record) -> None:
    for row in record.measurements:
        if row.spans:
            assert sum(span.seconds for span in row.spans) == pytest.approx(sum(row.samples_s) / 2)
            assert row.spans[0].seconds == pytest.approx(row.config["bytes"] / row.others[0].value)


def test_the_ratio_is_of_the_two_medians(record: Record) -> None:
    rates = {row.name: row.value for row in record.measurements}
    for cache in ("cold", "warm"):
        expected = rates[f"rooflab, {cache}"] / rates[f"safetensors mmap, {cache}"]
        assert rates[f"rooflab over safetensors mmap, {cache}"] == pytest.approx(expected)


def test_a_page_cache_that_does_not_forget_is_told(record: Record, cpu: Device) -> None:
    (row,) = [row for row in record.measurements if row.name == "rooflab, cold"]
    for resident, told in ((0.0, False), (0.5, True), (None, False)):
        found = list(weights.notes([replace(row, config={**row.config, "resident": resident})], cpu))
        assert any("did not forget the file before rooflab, cold: not cold at all" in note for note in found) == told


def test_weights_are_the_models_own_shapes_and_differ_from_each_other(tmp_path: Path) -> None:
    held = Made("mistral-nano", 3).write(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.numel() for tensor in found.values()) == 3_934_464
    first, second = found["model.layers.0.mlp.up_proj.weight"], found["model.layers.1.mlp.up_proj.weight"]
    assert not torch.equal(first, second)
    assert torch.equal(first, held.right("model.layers.0.mlp.up_proj.weight"))
    assert float(first.float().std()) == pytest.approx(0.02, rel=0.02)


def test_somebodys_own_weights_are_loaded_and_compared(tmp_path: Path, cpu: Device) -> None:
    made = {"a": torch.randn(3, 4), "b": torch.arange(5, dtype=torch.int64), "none": torch.empty(0)}
    save_file(made, tmp_path / "model.safetensors")
    held = given(tmp_path)
    assert [way.name for way in ways.ways(tmp_path)] == ["rooflab", "safetensors mmap", "safetensors pread"]
    for way in ways.ways(tmp_path):
        found = way.load(tmp_path, cpu)
        ways.present(found)
        assert ways.compare(way.name, found, held.right, held.names) == "all 3 tensors bit for bit"


def test_one_wrong_bit_and_a_lost_tensor_are_found(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4), "b": torch.zeros(2)}, tmp_path / "x.safetensors")
    held = given(tmp_path / "x.safetensors")
    wrong = {"a": torch.tensor([0.0, 0.0, -0.0, 0.0]), "b": torch.zeros(2)}  # equal as numbers
    with pytest.raises(CheckFailed, match="rooflab: a is not bit for bit what the file holds"):
        ways.compare("rooflab", wrong, held.right, held.names)
    with pytest.raises(CheckFailed, match="b is in one of file and result, and not in the other"):
        ways.compare("rooflab", {"a": torch.zeros(4)}, held.right, held.names)


def test_a_warm_load_is_bounded_by_what_follows_the_cache() -> None:
    def roof(value: float) -> Roof:
        return Roof(value=value, source="")

    seen = weights.Links(storage=roof(1.2e9), cache=roof(9e9), device=roof(5e9))
    assert (seen.slowest("cold").value, seen.slowest("warm").value) == (1.2e9, 5e9)
    assert weights.Links(storage=roof(1e9), cache=roof(9e9), device=None).slowest("warm").value == 9e9


def test_the_faster_of_fio_and_us_is_what_the_storage_can_do() -> None:
    row = weights._row("file, cold", 100, [1.0], Bound(None, "x"), "", link="storage", by="rooflab", cache="cold")
    told = weights._row("file, cold, by fio", 100, [0.5], Bound(None, "x"), "", link="storage", by="fio", cache="cold")
    warm = weights._row("file, warm", 100, [0.1], Bound(None, "x"), "", link="cache", by="rooflab", cache="warm")
    assert weights.fold([row, told, warm]).storage == Roof(value=200.0, source="measured here, file, cold, by fio")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "gpt-2"], "model='gpt-2' does not exist: write one of mistral-7b,"),
        (["--weights", "/nowhere"], "weights='/nowhere' holds no safetensors: name a file, or a folder with"),
        (["--weights", "/x", "--path", "/tmp"], "weights='/x' lie where they lie: leave out --model and --path"),
        (["--model", "mistral-nano", "--path", "/proc/1"], "path='/proc/1' cannot be written"),
    ],
)
def test_what_cannot_be_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        weights.main(["--device", "cpu", "--out", str(tmp_path), *flags])
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
