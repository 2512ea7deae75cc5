"""NCCL's log: lines of several versions and networks as they were recorded, and what is made of them.

Recorded lines: NVIDIA/nccl issues 1595, 1597 and 408, aws/aws-ofi-nccl issues 64 and 889, and public run logs of
two-node jobs over EFA and over sockets; hosts' names are shortened.
"""

import os
from pathlib import Path

import pytest

from workloads.collective.nccl import Choice, Log, heard, listening, read_log

P5EN = """\
8h200-2:6831:6840 [0] NCCL INFO NET/OFI Selected Provider is efa (found 16 nics)
8h200-2:6831:6840 [0] NCCL INFO NET/OFI NIC group 7 device #0 0000:a3:00.0
8h200-2:6831:6840 [0] NCCL INFO NET/OFI Skipping NCCL_PROTO checks on P5en + RDMA
8h200-2:6831:6840 [0] NCCL INFO PROFILER/Plugin: Could not find: libnccl-profiler.so.
8h200-2:6831:6840 [0] NCCL INFO Using network Libfabric
"""
EFA_DIRECT = """\
node0:121:121 [0] NCCL INFO NCCL version 2.30.4+cuda13.0
node0:121:140 [0] NCCL INFO NET/OFI Selected provider is efa, fabric is efa-direct (found 8 nics)
node0:121:140 [0] NCCL INFO Using network Libfabric
node0:121:140 [0] NCCL INFO Channel 00/0 : 3[3] -> 14[6] [send] via NET/Libfabric/3/GDRDMA
node0:121:140 [0] NCCL INFO Channel 01/0 : 3[3] -> 14[6] [send] via NET/Libfabric/3(1)/GDRDMA/Shared
node0:121:140 [0] NCCL INFO Channel 00/0 : 12[4] -> 3[3] [receive] via NET/Libfabric/3/GDRDMA
node0:121:140 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read
node0:121:140 [0] NCCL INFO AllReduce: 4096 Bytes -> Algo TREE proto LL channel{Lo..Hi}={0..1}
node0:121:140 [0] NCCL INFO AllReduce: 1073741824 Bytes -> Algo NVLS_TREE proto SIMPLE channel{Lo..Hi}={0..15}
node0:121:140 [0] NCCL INFO AllGather:  4194304 Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..3}
"""
P4D_2020 = """\
ip-172-31-6-104:9922:9980 [1] NCCL INFO Channel 01 : 9[101d0] -> 8[101c0] via P2P/IPC/read
ip-172-31-13-103:9738:9797 [0] NCCL INFO Channel 01 : 9[101d0] -> 0[101c0] [receive] via NET/AWS Libfabric/0
ip-172-31-6-104:9922:9980 [1] NCCL INFO Channel 01 : 9[101d0] -> 0[101c0] [send] via NET/AWS Libfabric/0
[1,0]<stdout>:test-nccl-efa-worker-0:21:21 [0] NCCL INFO Using network AWS Libfabric
"""
SOCKETS = """\
0fed198eb8ba:528157:528157 [0] NCCL INFO NET/Plugin: No plugin found (libnccl-net.so)
0fed198eb8ba:528157:528157 [0] NCCL INFO NET/Plugin: Plugin load returned 2 : libnccl-net.so: cannot open shared object file: No such file or directory : when loading libnccl-net.so
0fed198eb8ba:528157:528157 [0] NCCL INFO NET/Plugin: Using internal network plugin.
NCCL version 2.21.5+cuda12.4
0fed198eb8ba:528157:528268 [0] NCCL INFO NET/Socket : Using [0]eth0:192.168.29.197<0>
0fed198eb8ba:528157:528268 [0] NCCL INFO Using network Socket
node-01:1897709:1897731 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] [send] via NET/Socket/0
[0] NCCL INFO 805306368 Bytes -> Algo 1 proto 2 time 3970.683594
2: node-0:309:309 [0] NCCL INFO AllGather: 37756928 Bytes -> Algo 1 proto 2 time 2860.208008
"""  # noqa: E501  # recorded


def test_a_log_over_efa() -> None:
    log = read_log(P5EN)
    assert (log.network, log.provider, log.nics, log.complaint) == ("Libfabric", "efa", 16, "")
    assert log.transport == "NCCL: network Libfabric (provider efa, 16 NICs)"


def test_a_newer_log_with_ways_and_choices() -> None:
    log = read_log(EFA_DIRECT)
    assert (log.version, log.network, log.provider, log.nics) == ("2.30.4", "Libfabric", "efa", 8)
    assert log.ways == {"NET/Libfabric/GDRDMA": 2, "P2P/CUMEM/read": 1}, "a receiver names its sender's channel again"
    assert log.choice("all-reduce", 4096) == Choice(algorithm="TREE", protocol="LL")
    assert log.choice("all-reduce", 2**30) == Choice(algorithm="NVLS_TREE", protocol="SIMPLE")
    assert log.choice("all-gather", 4194304) == Choice(algorithm="RING", protocol="SIMPLE")
    assert log.choice("all-gather", 4096) is None
    assert log.choice("send-recv", 4096) is None
    assert log.transport == (
        "NCCL 2.30.4: network Libfabric (provider efa, 8 NICs); channels: 2 × NET/Libfabric/GDRDMA, 1 × P2P/CUMEM/read"
    )


def test_an_old_log() -> None:
    log = read_log(P4D_2020)
    assert (log.network, log.provider) == ("AWS Libfabric", "")
    assert log.ways == {"NET/AWS Libfabric": 1, "P2P/IPC/read": 1}


def test_a_log_over_sockets_says_why() -> None:
    log = read_log(SOCKETS)
    assert (log.version, log.network, log.provider) == ("2.21.5", "Socket", "")
    assert log.complaint == "NET/Plugin: No plugin found (libnccl-net.so)"
    assert log.ways == {"NET/Socket": 1}
    assert log.choice("all-gather", 37756928) == Choice(algorithm="RING", protocol="SIMPLE")
    assert log.choice("all-reduce", 805306368) == Choice(algorithm="RING", protocol="SIMPLE"), "it named no collective"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x:1:2 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so. Using internal network plugin.",
         "NET/Plugin: Could not find: libnccl-net.so. Using internal network plugin."),
        ("[1] get_ofi_provider:312 NCCL WARN NET/OFI Could not find any optimal provider",
         "NET/OFI Could not find any optimal provider"),
    ],
)  # fmt: skip
def test_other_complaints(line: str, complaint: str) -> None:
    assert read_log(line).complaint == complaint


@pytest.mark.parametrize("text", ["", "\x00\xff nonsense", "NCCL INFO Channel 00/0 :", "Bytes -> Algo RING proto"])
def test_a_log_that_says_nothing(text: str) -> None:
    assert read_log(text) == Log()
    assert read_log(text).transport == ""


def test_alone_the_log_is_memory_and_goes_with_the_process() -> None:
    environment: dict[str, str] = {}
    with listening(environment) as file:
        assert environment["NCCL_DEBUG"] == "INFO"
        assert set(environment["NCCL_DEBUG_SUBSYS"].split(",")) == {"INIT", "NET", "TUNING"}
        assert environment["NCCL_DEBUG_FILE"] == str(file)
        with Path(environment["NCCL_DEBUG_FILE"]).open("w") as log:  # as NCCL opens it
            log.write(P5EN)
            log.flush()
            assert heard(file).network == "Libfabric"
            log.write("8h200-2:6831:6840 [0] NCCL INFO AllReduce: 4096 Bytes -> Algo TREE proto LL\n")
        assert heard(file).choice("all-reduce", 4096) is not None
    assert not file.exists()


def test_in_a_run_the_log_comes_home_and_a_users_own_log_is_left_alone(tmp_path: Path) -> None:
    environment = {"ROOFLAB_OUT": str(tmp_path), "ROOFLAB_NODE": "node1"}
    with listening(environment) as file:
        assert file == tmp_path / "nccl" / f"node1.{os.getpid()}.log"
        assert environment["NCCL_DEBUG_FILE"] == str(file)
        assert heard(file) == Log()
        file.write_text(P5EN)
    assert heard(file).nics == 16
    environment = {"ROOFLAB_OUT": str(tmp_path / "other"), "NCCL_DEBUG": "WARN", "NCCL_DEBUG_FILE": "/mine"}
    with listening(environment) as file:
        assert (environment["NCCL_DEBUG"], environment["NCCL_DEBUG_FILE"]) == ("WARN", "/mine")
        assert heard(file) == Log()
