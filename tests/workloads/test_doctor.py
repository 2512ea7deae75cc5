"""doctor: machines that are well get no warning, and each fault is found, with what to do."""

from pathlib import Path
from statistics import median

import pytest
import torch

from labs.findings import Finding, read_finding, worst
from labs.links import nvlink_roof, pcie_bytes_per_s
from labs.results import Measurement, Roof, read
from tests.workloads import machines
from tests.workloads.machines import A100, H200, L4, installed, well
from workloads import doctor
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.diagnosis import command, copies, gpus, host, software, topology
from workloads.diagnosis.command import Answer
from workloads.diagnosis.gpus import Card

REPLACED = {"gpu_uuid": L4["uuid"], "remapped_rows.uncorrectable": "0", "remapped_rows.pending": "No",
            "remapped_rows.failure": "No"}  # fmt: skip


def judged(told: dict[str, str], **remapped: str) -> list[Finding]:
    """The findings of one GPU, read from nvidia-smi's table."""
    (row,) = command.rows(machines.table(told), gpus.FIELDS)
    return list(
        gpus.judge(Card(told=row), REPLACED | {f"remapped_rows.{key}": value for key, value in remapped.items()})
    )


@pytest.mark.parametrize("told", [L4, H200, A100])
def test_a_gpu_that_is_well_has_one_finding(told: dict[str, str]) -> None:
    (finding,) = judged(told)
    assert finding.level == "ok"
    assert finding.seen.startswith(f"{told['name']}, {told['clocks.sm']} of {told['clocks.max.sm']} MHz, ")
    assert finding.seen.endswith("PCIe 4.0 ×16, ECC Enabled" if told is not H200 else "PCIe 5.0 ×16, ECC Enabled")


@pytest.mark.parametrize(
    ("changed", "remapped", "level", "seen"),
    [
        ({"ecc.errors.uncorrected.volatile.total": "3"}, {}, "fail", "3 uncorrected memory errors since the last"),
        ({"ecc.errors.uncorrected.aggregate.total": "2"}, {}, "note", "2 uncorrected memory errors in its life, none"),
        ({"ecc.mode.current": "Disabled"}, {}, "note", "ECC is off"),
        ({}, {"failure": "Yes"}, "fail", "a faulty memory row could not be replaced"),
        ({}, {"pending": "Yes"}, "warn", "a faulty memory row waits to be replaced"),
        ({}, {"uncorrectable": "4"}, "note", "4 memory rows were replaced after uncorrected errors"),
        ({"retired_pages.pending": "Yes"}, {}, "warn", "a faulty memory row waits to be replaced"),
        ({"clocks_event_reasons.active": "0x0000000000000040"}, {}, "warn",
         "its clock is held down by temperature, by the hardware"),
        ({"clocks_event_reasons.active": "0x0000000000000080"}, {}, "warn", "clock is held down by the power brake"),
        ({"clocks_event_reasons.active": "0x0000000000000002"}, {}, "note", "held down by application clocks"),
        ({"power.limit": "50.00"}, {}, "warn", "power cap 50 W, usually 72 W"),
        ({"temperature.gpu": "88"}, {}, "warn", "88 °C"),
        ({"clocks.max.sm": "1500"}, {}, "note", "top clock 1500 MHz, 2040 elsewhere"),
        ({"pcie.link.width.current": "8"}, {}, "warn", "its link has 8 of 16 lanes"),
        ({"pcie.link.gen.max": "3"}, {}, "note", "its link is PCIe 3.0, the GPU can 4.0"),
        ({"memory.used": "9000"}, {}, "warn", "8.8 GiB of its memory are in use"),
        ({"mig.mode.current": "Enabled"}, {}, "note", "MIG is on"),
        ({"compute_mode": "Prohibited"}, {}, "fail", "its compute mode is Prohibited"),
        ({"persistence_mode": "Disabled"}, {}, "note", "persistence mode is off"),
    ],
)  # fmt: skip
def test_each_fault_of_a_gpu_is_found(changed: dict[str, str], remapped: dict[str, str], level: str, seen: str) -> None:
    first, found = judged(L4 | changed, **remapped)
    assert first.level == "ok"
    assert found.level == level
    assert seen in found.seen
    assert found.means
    assert found.do or level == "note"


def test_half_the_lanes_double_the_time_of_a_copy() -> None:
    (_, found) = judged(L4 | {"pcie.link.width.current": "8"})
    assert found.means == "copies from and to the host take 2 times as long"


def test_a_gpu_that_tells_little_is_no_error() -> None:
    (finding,) = judged({name: "[N/A]" for name in L4} | {"index": "1", "name": "Tesla T4"})
    assert finding.subject == "GPU 1"
    assert finding.seen == "Tesla T4, ? of ? MHz, ? of ? W, ? °C, ? GiB, PCIe ?.0 ×?, ECC none"


def test_an_older_driver_is_asked_without_the_fields_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def old(*words: str) -> Answer:
        fields = words[1].partition("=")[2].split(",")
        asked.append(len(fields))
        for new in ("clocks_event_reasons.active", "pcie.link.gen.gpumax"):
            if new in fields:
                return Answer(2, f'Field "{new}" is not a valid field to query.\n')
        return Answer(0, machines.table(L4, fields=fields))

    monkeypatch.setattr(command, "ask", old)
    answer, known = command.query(gpus.FIELDS)
    assert asked == [len(gpus.FIELDS), len(gpus.FIELDS) - 1, len(gpus.FIELDS) - 2]
    (row,) = command.rows(answer.text, known)
    assert Card(told=row).reasons == 1, "the older name says the same"


def test_a_program_that_is_not_there_is_an_answer() -> None:
    answer = command.ask("no-such-program-here")
    assert (answer.code, answer.text) == (127, "no-such-program-here cannot be run: No such file or directory")
    assert command.rows(answer.text, gpus.FIELDS) == []


@pytest.mark.parametrize(
    ("text", "level", "seen"),
    [
        (machines.FOUR_L4, "note", "4 GPUs without NVLink: NODE (6 pairs)"),
        (machines.nvlinked(), "ok", "8 GPUs, all over NVLink: NV18 (28 pairs)"),
        (machines.nvlinked(gpus=4, links=12), "ok", "4 GPUs, all over NVLink: NV12 (6 pairs)"),
        (machines.FOUR_L4.replace("NODE", "SYS"), "note", "4 GPUs without NVLink: SYS (6 pairs)"),
    ],
)
def test_a_topology_is_read_and_judged(text: str, level: str, seen: str) -> None:
    (found,) = topology.judge(topology.parse(text))
    assert (found.level, found.seen) == (level, seen)


def test_links_that_are_down_show() -> None:
    fewer = list(topology.judge(topology.parse(machines.nvlinked(down=2))))
    assert [found.level for found in fewer] == ["ok", "warn"]
    assert fewer[1].seen == "pairs differ in their NVLinks: NV16 (1 pairs), NV18 (27 pairs)"
    matrix = topology.parse(machines.nvlinked())
    (torn,) = topology.judge(matrix | {(0, 1): "SYS"})
    assert torn.level == "warn"
    assert topology.parse("no devices were found") == {}
    assert (topology.nvlinks("NV18"), topology.nvlinks("NODE")) == (18, 0)


def levels(findings) -> list[tuple[str, str]]:
    return [(found.level, found.subject) for found in findings if found.level != "ok"]


def test_a_node_whose_software_fits_has_no_finding() -> None:
    assert levels(software.judge(installed(), 1)) == []
    assert installed().driver == "580.95.05"
    assert installed().driver_cuda == (13, 0)


@pytest.mark.parametrize(
    ("changed", "cards", "level", "seen", "do"),
    [
        ({"smi": Answer(18, "Failed to initialize NVML: Driver/library version mismatch\n")}, 0, "fail",
         "1 NVIDIA GPUs on the bus, and nvidia-smi says: Failed to initialize NVML: Driver/library version mismatch",
         "reboot: the library was updated"),
        ({"smi": Answer(127, "nvidia-smi cannot be run: No such file or directory")}, 0, "fail", "on the bus",
         "nvidia-smi is not installed"),
        ({"smi": Answer(124, "nvidia-smi did not answer within 30 s")}, 0, "fail", "did not", "the driver hangs"),
        ({"smi": Answer(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")}, 0,
         "fail", "couldn't communicate", "sudo modprobe nvidia"),
        ({"smi": Answer(15, "Unable to determine the device handle: GPU is lost.")}, 0, "fail", "GPU is lost",
         "stop and start the instance"),
        ({"on_the_bus": 0}, 0, "fail", "a g6.xlarge has 1 × L4, and none is on the bus", "stop and start"),
        ({"on_the_bus": 0, "machine": ""}, 0, "warn", "this machine has none of the GPUs of a g6.xlarge", "nothing in"),
        ({"torch_cuda": None, "torch_sees": 0, "torch_version": "2.13.0+cpu"}, 1, "fail",
         "torch 2.13.0+cpu was built without CUDA", "pip install torch"),
        ({"smi": Answer(0, machines.BANNER.replace("13.0 ", "12.8 ")), "torch_sees": 0}, 1, "fail",
         "torch 2.13.0+cu130 for CUDA 13.0, driver 580.95.05 for CUDA 12.8", "install a driver for CUDA 13, or torch"),
        ({"torch_cuda": "13.2"}, 1, "note", "for CUDA 13.2, driver 580.95.05 for CUDA 13.0", ""),
        ({"torch_sees": 0}, 1, "fail", "torch 2.13.0+cu130 can use none of 1 GPUs", "python -c"),
        ({"torch_sees": 1}, 4, "warn", "it sees 1 of 4 GPUs: nobody hides the others", "nvidia-smi -L"),
        ({"torch_sees": 2, "hidden": True}, 4, "warn", "CUDA_VISIBLE_DEVICES chooses them", "unset CUDA_VISIBLE"),
        ({"kernel_log": Answer(0, "[ 9.1] NVRM: Xid (PCI:0000:31:00): 79, pid='<unknown>', GPU has fallen off the "
          "bus.\n")}, 1, "fail", "Xid 79 on 0000:31:00: the GPU fell off the bus", "stop and start"),
        ({"kernel_log": Answer(0, 2 * "[ 9.1] NVRM: Xid (PCI:0000:31:00): 48, pid=7, DBE\n")}, 1, "warn",
         "Xid 48 on 0000:31:00, 2 times: an uncorrected memory error", "reboot"),
        ({"kernel_log": Answer(0, "[ 9.1] NVRM: Xid (PCI:0000:31:00): 31, pid=7, MMU Fault\n")}, 1, "note",
         "Xid 31 on 0000:31:00", ""),
        ({"kernel_log": Answer(1, "dmesg: read kernel buffer failed: Operation not permitted\n")}, 1, "note",
         "not readable: dmesg: read kernel buffer failed: Operation not permitted", "sudo dmesg"),
    ],
)  # fmt: skip
def test_each_misfit_of_the_software_is_found(changed, cards: int, level: str, seen: str, do: str) -> None:
    (found,) = (found for found in software.judge(installed(**changed), cards) if found.level != "ok")
    assert found.level == level
    assert seen in found.seen
    assert found.do.startswith(do)


def test_a_machine_that_was_never_to_have_a_gpu_is_well() -> None:
    bare = installed(on_the_bus=0, machine="", promised="", torch_cuda=None, torch_sees=0)
    (found,) = software.judge(bare, 0)
    assert (found.level, found.seen) == ("ok", "no GPU on this machine, and none was promised")


def test_gpus_are_counted_on_the_bus(tmp_path: Path) -> None:
    for slot, vendor, kind in (
        ("00", "0x1d0f", "0x020000"),
        ("1e", "0x10de", "0x030200"),
        ("1f", "0x10de", "0x040300"),
    ):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "vendor").write_text(f"{vendor}\n")
        (tmp_path / slot / "class").write_text(f"{kind}\n")
    assert software.on_the_bus(tmp_path) == 1, "a network card and a GPU's sound are none"
    assert software.on_the_bus(tmp_path / "absent") == 0


def test_a_machine_that_is_well_has_no_finding_but_ok() -> None:
    assert levels(host.judge(well())) == []


@pytest.mark.parametrize(
    ("changed", "level", "subject", "seen"),
    [
        ({"governor": "powersave"}, "note", "CPU", "its governor is powersave"),
        ({"quota": 1.5}, "warn", "CPU", "a container may use 1.5 of 4 cores"),
        ({"load": 9.0}, "warn", "CPU", "load 9.0 on 4 cores"),
        ({"clock": "xen"}, "note", "CPU", "the kernel's clock is xen"),
        ({"available": machines.GIB}, "warn", "memory", "1.0 GiB of 16.0 GiB available"),
        ({"swapped": 2 * machines.GIB}, "warn", "memory", "2.0 GiB lie in swap"),
        ({"shared": 64 * 2**20}, "warn", "memory", "/dev/shm has 64.0 MiB"),
        ({"free": {"/data": machines.GIB}}, "fail", "disk", "1.0 GiB free at /data"),
        ({"free": {"/data": 9 * machines.GIB}}, "note", "disk", "9.0 GiB free at /data"),
        ({"disks": machines.DISKS}, "warn", "disk", "instance store not mounted: nvme1n1 (250 GB)"),
        ({"fabrics": 4, "locked": 8 * 2**20}, "warn", "limits", "8.0 MiB may be locked in memory, with 4 EFA devices"),
        ({"files": 1024}, "note", "limits", "1024 open files a process"),
    ],
)  # fmt: skip
def test_each_fault_of_the_machine_is_found(changed, level: str, subject: str, seen: str) -> None:
    (found,) = (found for found in host.judge(well(**changed)) if found.level != "ok")
    assert (found.level, found.subject, found.seen) == (level, subject, seen)
    assert found.means


def test_a_disk_is_mounted_where_anything_made_of_it_is() -> None:
    assert host.unmounted(machines.DISKS) == ["nvme1n1 (250 GB)"]
    striped = machines.DISKS.replace(
        '"fstype": null, "mountpoints": [null]}]}',
        '"mountpoints": [null], "children": [{"name": "md127", "mountpoints": ["/scratch"]}]}]}',
    )
    assert host.unmounted(striped) == []
    assert host.unmounted("lsblk cannot be run") == []


def test_a_containers_share_of_the_cores() -> None:
    assert host.quota("150000 100000") == 1.5
    assert (host.quota("max 100000"), host.quota("")) == (0.0, 0.0)


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    seen = host.look(tmp_path / "not" / "yet")
    assert seen.memory > seen.available > 0
    assert seen.cores >= 1
    assert str(tmp_path) in seen.free


def test_what_lanes_carry() -> None:
    assert pcie_bytes_per_s(4, 16) == pytest.approx(31.5e9, rel=1e-3)
    assert pcie_bytes_per_s(5, 16) == pytest.approx(63.0e9, rel=1e-3)
    assert pcie_bytes_per_s(2, 8) == 4e9
    assert pcie_bytes_per_s(9, 16) is None
    linked = nvlink_roof("NVIDIA H200", 18)
    assert linked is not None
    assert linked.value == 450e9
    assert nvlink_roof("NVIDIA L4", 1) is None


def test_a_link_stands_beside_its_lanes_rate() -> None:
    cards = [Card(told=A100), Card(told=A100 | {"pcie.link.width.max": "8"})]
    one, other = (copies.roof_of(cards, index) for index in (0, 1))
    assert one is not None
    assert other is not None
    assert (one.source, one.value) == ("PCIe 4.0 ×16, one way", 2 * other.value)
    assert copies.between(cards, {}, 1)[0] == other, "without NVLink the slower link bounds"
    over, _ = copies.between(cards, {(0, 1): "NV12"}, 1)
    assert over is not None
    assert (over.source, over.value) == ("12 NVLinks of 25 GB/s one way", 300e9)
    assert copies.roof_of([], 0) is None


def row(rate: float) -> Measurement:
    return Measurement(name="host to GPU 0", value=rate, unit="B/s", estimator="made up",
                       roof=Roof(value=31.5e9, source="PCIe 4.0 ×16, one way"))  # fmt: skip


def test_a_slow_link_is_a_warning() -> None:
    (good,), (slow,) = (list(doctor.links([row(rate)])) for rate in (26e9, 12e9))
    assert (good.level, good.seen) == ("ok", "host to GPU 0: 26.0 GB/s, 83% of PCIe 4.0 ×16, one way")
    assert (slow.level, slow.seen) == ("warn", "host to GPU 0: 12.0 GB/s, 38% of PCIe 4.0 ×16, one way")


def test_a_copy_that_does_not_arrive_is_a_failed_check(cpu: Device) -> None:
    sent = torch.arange(64, dtype=torch.uint8)
    with pytest.raises(CheckFailed, match=r"^copy: what arrived is not what was sent$"):
        copies.copied("copy", cpu, lambda: None, sent, lambda: torch.zeros_like(sent), 1, None, "none")


def test_the_record_keeps_every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(copies, "BYTES", {False: 2**20})
    monkeypatch.setattr(software, "look", lambda: installed(on_the_bus=0, machine=""))
    monkeypatch.setattr(command, "ask", lambda *words: Answer(127, f"{words[0]} cannot be run"))
    doctor.main(["--device", "cpu", "--out", str(tmp_path)])
    record = read(tmp_path / "doctor.node0.json")
    found = [read_finding(note) for note in record.notes]
    assert None not in found
    assert {finding.subject for finding in found if finding} >= {"driver", "CPU", "memory", "disk", "limits", "link"}
    assert "warn  driver      this machine has none of the GPUs of a g6.xlarge" in capsys.readouterr().out
    (copy,) = record.measurements
    assert (copy.unit, copy.checked) == ("B/s", "every byte arrived")
    assert copy.value == pytest.approx(2 * 2**20 / median(copy.samples_s))


def test_a_machine_that_is_not_well_ends_in_1_with_its_record_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "look", lambda: installed(on_the_bus=1))
    with pytest.raises(CheckFailed, match=r"^driver: 1 NVIDIA GPUs on the bus, and nvidia-smi says: "):
        doctor.main(["--device", "cpu", "--skip-copies", "--out", str(tmp_path)])
    record = read(tmp_path / "doctor.node0.json")
    assert record.measurements == ()
    assert worst(finding for note in record.notes if (finding := read_finding(note))) == "fail"


def test_a_finding_is_read_back_from_its_line() -> None:
    made = Finding(level="warn", subject="GPU 0", seen="half · of it\nis gone", means="slow", do="")
    assert read_finding(made.line()) == Finding(level="warn", subject="GPU 0", seen="half - of it is gone",
                                                means="slow", do="")  # fmt: skip
    assert read_finding("no price per unit of work") is None
    assert read_finding("great · a · b · c · d") is None
    assert worst([]) == "ok"
