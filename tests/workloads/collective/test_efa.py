"""The evidence of EFA: fi_info's lists as they were recorded, counters in a folder like the kernel's, and their sum."""

import os
from pathlib import Path

import pytest
import torch.distributed as dist

from labs.efa import broken
from labs.instances import instance_type
from workloads import collectives
from workloads.collective import efa
from workloads.collective.rows import Circle
from workloads.command import CheckFailed
from workloads.device import Device
from workloads.group import Place, joined
from workloads.record import Surroundings

# g6 and p4d of AWS's guide to EFA, p5 of a public log, hpc6a with both kinds of endpoint.
ONE = """\
provider: efa
    fabric: efa
    domain: rdmap0s31-rdm
    version: 121.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
provider: efa
    fabric: efa
    domain: rdmap0s31-dgrm
    version: 121.0
    type: FI_EP_DGRAM
    protocol: FI_PROTO_EFA
"""
DIRECT = """\
provider: efa
    fabric: efa-direct
    domain: rdmap47s0-rdm
    version: 201.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
provider: efa
    fabric: efa
    domain: rdmap47s0-rdm
    version: 201.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
"""
OLD = """\
provider: efa
    fabric: EFA-fe80::e5:56ff:fe34:56a8
    domain: efa_0-rdm
    version: 2.0
    type: FI_EP_RDM
    protocol: FI_PROTO_EFA
provider: efa;ofi_rxd
    fabric: EFA-fe80::e5:56ff:fe34:56a8
    domain: efa_0-dgrm
    version: 1.0
    type: FI_EP_RDM
    protocol: FI_PROTO_RXD
"""
TCP = """\
provider: tcp;ofi_rxm
    fabric: 10.0.1.0/24
    domain: ens5
    version: 121.0
    type: FI_EP_RDM
    protocol: FI_PROTO_RXM
"""
FOUR = "".join(ONE.replace("rdmap0s31", name) for name in ("rdmap16s27", "rdmap32s27", "rdmap144s27", "rdmap160s27"))


@pytest.mark.parametrize(
    ("text", "providers"),
    [(ONE, ("efa",)), (DIRECT, ("efa",)), (OLD, ("efa",)), (FOUR, ("efa",) * 4), (TCP, ("tcp;ofi_rxm",)),
     ("fi_getinfo: -61 (No data available)\n", ()), ("", ())],
)  # fmt: skip
def test_fi_info_lists_a_device_once_however_often_it_names_it(text: str, providers: tuple[str, ...]) -> None:
    assert efa.read_fi_info(text) == providers


def program(folder: Path, script: str) -> Path:
    path = folder / "fi_info"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_fi_info_says_where_it_lists_nothing(tmp_path: Path) -> None:
    failing = program(tmp_path, "echo 'fi_getinfo: -61 (No data available)' >&2; exit 61")
    assert efa.ask_fi_info(failing) == ((), "fi_info said 'fi_getinfo: -61 (No data available)'")
    listing = program(tmp_path, f"cat <<'END'\n{ONE}END")
    assert efa.ask_fi_info(listing) == (("efa",), "")
    providers, said = efa.ask_fi_info(tmp_path / "absent")
    assert providers == ()
    assert said.startswith("fi_info did not answer: ")


def test_without_fi_info_that_is_what_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(efa, "_FI_INFO", tmp_path / "fi_info")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert efa.ask_fi_info() == ((), f"there is no fi_info, neither {tmp_path / 'fi_info'} nor in PATH")


def counters(folder: Path, **devices: dict[str, int | str]) -> Path:
    """Devices as the kernel shows them."""
    for device, values in devices.items():
        at = folder / device / "ports" / "1" / "hw_counters"
        at.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (at / name).write_text(f"{value}\n")
    return folder


def test_counters_are_read_and_their_growth_added_over_devices(tmp_path: Path) -> None:
    before = efa.read_counters(counters(tmp_path, rdmap0={"tx_bytes": 5000, "rdma_write_bytes": 2000, "lifespan": 10},
                                        rdmap1={"tx_bytes": 1, "send_bytes": 1}))  # fmt: skip
    assert before["rdmap0"] == {"lifespan": 10, "rdma_write_bytes": 2000, "tx_bytes": 5000}
    after = efa.read_counters(counters(tmp_path, rdmap0={"tx_bytes": 6100, "rdma_write_bytes": 3000},
                                       rdmap1={"tx_bytes": 11, "send_bytes": 11}))  # fmt: skip
    assert efa.sent_bytes(before, after) == 1100 + 10, "what left the device, payload and headers"


def test_where_writes_are_not_counted_as_sent_they_are_added(tmp_path: Path) -> None:
    before = {"rdmap0": {"tx_bytes": 100, "rdma_write_bytes": 0, "rdma_read_resp_bytes": 0, "send_bytes": 100}}
    after = {"rdmap0": {"tx_bytes": 150, "rdma_write_bytes": 1000, "rdma_read_resp_bytes": 500, "send_bytes": 150}}
    assert efa.sent_bytes(before, after) == 1550


def test_counters_that_tell_nothing_are_not_zero(tmp_path: Path) -> None:
    assert efa.sent_bytes({}, {}) is None
    assert efa.sent_bytes({"a": {"rx_bytes": 1}}, {"a": {"rx_bytes": 2}}) is None
    assert efa.read_counters(counters(tmp_path, odd={"tx_bytes": "not a number"})) == {}


def test_which_nodes_are_to_have_efa(tmp_path: Path) -> None:
    g6, p5, none = instance_type("g6.12xlarge"), instance_type("p5.48xlarge"), instance_type("g6.xlarge")
    here, bare = counters(tmp_path / "here", rdmap0={"tx_bytes": 0}), tmp_path / "bare"
    assert efa.wanted(g6, 2, {"ROOFLAB_EFAS": "1"}, bare) == 1, "the lab made one: that it is gone must show"
    assert efa.wanted(g6, 1, {"ROOFLAB_EFAS": "1"}, here) == 0, "nothing leaves a single node"
    assert efa.wanted(p5, 2, {}, here) == 32, "the user's own machines have it: as many as the type"
    assert efa.wanted(p5, 2, {}, bare) == 0, "deployed with efa=off"
    assert efa.wanted(none, 2, {}, here) == 0
    assert efa.wanted(None, 2, {}, here) == 0
    with pytest.raises(ValueError, match=r"^ROOFLAB_EFAS='many' is not a number: set it as userdata/efa.sh does, or"):
        efa.wanted(g6, 2, {"ROOFLAB_EFAS": "many"}, here)


def setting(*, allow_tcp: bool) -> collectives.Setting:
    config = collectives.Config(collectives=("all-reduce",), sizes_bytes=(1024, 4096), dtypes=("fp32",), iterations=1,
                                warmup=1, budget_s=1, allow_tcp=allow_tcp)  # fmt: skip
    return collectives.Setting(config=config, here=Place(), circle=Circle(ranks=1, nodes=2, network=None), efas=1,
                               within=Surroundings(nodes=2, started=0), log=Path(os.devnull))  # fmt: skip


def test_a_lab_that_should_have_efa_and_has_none_fails_before_anything_is_measured(
    cpu: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a node whose interface was deployed without EFA: no device, no list, no word of NCCL's."""
    monkeypatch.setattr(efa, "_FI_INFO", program(tmp_path, "echo 'fi_getinfo: -61' >&2; exit 61"))
    monkeypatch.setattr(efa, "PROOF_BYTES", 4096)
    with joined(Place(), cpu) as group:
        with pytest.raises(CheckFailed) as failure:
            collectives.prove_efa(setting(allow_tcp=False), group)
        said = capsys.readouterr().out
        found = collectives.prove_efa(setting(allow_tcp=True), group)
    text = str(failure.value)
    assert text.startswith("this is not EFA: EFA provider, ")
    assert "libfabric opens no EFA: fi_info said 'fi_getinfo: -61'" in text
    assert "0 EFA devices, this lab has 1" in text
    assert "the hardware counters cannot be read" in text
    assert text.endswith("--allow-tcp measures all the same")
    assert "\n" not in text
    assert said.count("fail · ") == 3
    assert "is its interface of type efa" in said, "each line says what to do"
    assert len(broken(found)) == 3, "with --allow-tcp the run goes on, and the record says why it should not"
    assert not dist.is_initialized()
