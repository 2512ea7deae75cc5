"""storage: cold and warm apart, beside what is documented, nothing left, wrong flags in one line."""

from pathlib import Path

import pytest

from labs.results import Record, read
from workloads import storage
from workloads.disk import fio
from workloads.disk.mounts import Mount, Place
from workloads.record import surroundings

SMALL = ["--device", "cpu", "--mib", "8", "--files", "6", "--repeats", "2"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A small run on a folder of its own, with an fio that answers by heart."""
    out, folder = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("disk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fio, "installed", lambda: True)
        patch.setattr(fio, "run", lambda *_given, **_more: fio.Told(bytes_per_s=2e9, iops=5e5, seconds=3.0))
        storage.main([*SMALL, "--path", str(folder), "--out", str(out)])
    assert list(folder.iterdir()) == []
    return read(out / "storage.node0.json")


def test_every_operation_is_there_cold_and_warm_apart(record: Record) -> None:
    assert [(row.config["by"], row.config["op"], row.config["cache"], row.unit) for row in record.measurements] == [
        ("rooflab", "write", "durable", "B/s"),
        ("rooflab", "read", "cold", "B/s"),
        ("rooflab", "read", "warm", "B/s"),
        ("rooflab", "random read", "cold", "read/s"),
        ("fio", "write", "durable", "B/s"),
        ("fio", "read", "cold", "B/s"),
        ("fio", "random read", "cold", "read/s"),
        ("rooflab", "create small", "not synced", "file/s"),
        ("rooflab", "read small", "cold", "file/s"),
        ("rooflab", "read small", "warm", "file/s"),
    ]
    write, told = record.measurements[0], record.measurements[4]
    assert write.checked == "all 2 blocks compared with what was written"
    assert write.value == pytest.approx(8 * 2**20 / (sum(write.samples_s) / 2))
    assert told.value == pytest.approx(2e9)
    assert record.measurements[6].value == pytest.approx(5e5)


def test_a_disk_that_nobody_knows_has_a_reason_and_the_page_cache_is_memory(record: Record) -> None:
    assert all(row.roof is None for row in record.measurements)
    assert record.measurements[2].no_roof_because.startswith("the page cache is memory")


def test_the_fastest_cold_read_is_told_in_a_models_weights(record: Record) -> None:
    assert any("mistral-7b's 14.5 GB in bf16 would take" in note for note in record.notes)


def test_a_labs_own_lustre_stands_beside_what_was_bought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOFLAB_STACK", "Lab4Stack")
    monkeypatch.setenv("ROOFLAB_STORAGE", "scratch")
    monkeypatch.setenv("ROOFLAB_STORAGE_GIB", "1200")
    monkeypatch.setenv("ROOFLAB_INSTANCE_TYPE", "c7i.large")
    mount = Mount(point=Path("/fsx"), source="10.0.0.7@tcp:/x", type="lustre", kind="lustre")
    known = storage.limits_of(mount, surroundings())
    assert list(storage.roof_lines(Place(folder=Path("/fsx"), mount=mount), known)) == [
        "roof lustre /fsx, read: 234 MB/s (scratch: 200 MB/s a TiB read, 1200 GiB, "
        "https://docs.aws.amazon.com/fsx/latest/LustreGuide/ssd-storage.html)",
        "roof lustre /fsx, write: 117 MB/s (scratch: 100 MB/s a TiB written, 1200 GiB, "
        "https://docs.aws.amazon.com/fsx/latest/LustreGuide/ssd-storage.html)",
        "roof lustre /fsx: none, AWS tells a Lustre file system's IOPS only as tens of thousands a TiB",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--path", "/nowhere"], "path='/nowhere' is no folder: name one that is there, or leave --path out"),
        (["--mib", "1"], "mib=1 is less than one block: write at least 4"),
        (["--path", "{here}", "--mib", "999999999"], "GB would leave less than a tenth: choose fewer MiB, or another"),
    ],
)
def test_what_cannot_be_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [flag.replace("{here}", str(tmp_path)) for flag in flags]
    with pytest.raises(SystemExit) as ending:
        storage.main(["--device", "cpu", "--out", str(tmp_path / "out"), *given])
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
