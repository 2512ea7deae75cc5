"""How the GPUs of a node reach each other: the matrix of `nvidia-smi topo -m`.

Words: https://docs.nvidia.com/multi-node-nvlink-systems/ and the legend that the program prints below its matrix.
"""

import re
from collections.abc import Iterator

from labs.findings import Finding, note, ok, warn

_CODES = re.compile(r"\x1b\[[0-9;]*m")
_GPU = re.compile(r"GPU\d+")
WAYS = {
    "PIX": "one PCIe bridge", "PXB": "several PCIe bridges", "PHB": "the CPU's PCIe host bridge",
    "NODE": "the host bridges of one NUMA node", "SYS": "the link between CPU sockets",
}  # fmt: skip

Matrix = dict[tuple[int, int], str]
"""By pair of GPUs, the lower first: "NV18", "PIX", "PXB", "PHB", "NODE" or "SYS"."""


def parse(text: str) -> Matrix:
    """The ways between GPUs; {} where there is one GPU or none."""
    lines = [re.split(r"\t+", _CODES.sub("", line).strip()) for line in text.splitlines()]
    heads = next((line for line in lines if line and _GPU.fullmatch(line[0])), [])
    columns = [head for head in heads if _GPU.fullmatch(head)]
    found: Matrix = {}
    for line in lines:
        if line is heads or not line or not _GPU.fullmatch(line[0]):
            continue
        row = int(line[0][3:])
        for column, cell in zip(columns, line[1:], strict=False):
            if row < int(column[3:]):
                found[row, int(column[3:])] = cell.strip()
    return found


def nvlinks(way: str) -> int:
    """Bonded NVLinks of a way; 0 for one over PCIe."""
    return int(way[2:]) if re.fullmatch(r"NV\d+", way) else 0


def judge(matrix: Matrix) -> Iterator[Finding]:
    """What the ways mean for collectives."""
    if not matrix:
        return
    ways = sorted(set(matrix.values()))
    count = 1 + max(second for _, second in matrix)
    said = ", ".join(f"{way} ({len([one for one in matrix.values() if one == way])} pairs)" for way in ways)
    linked = [way for way in ways if nvlinks(way)]
    if linked and len(linked) == len(ways):
        yield ok("topology", f"{count} GPUs, all over NVLink: {said}")
    elif linked:
        yield warn(
            "topology",
            f"{count} GPUs, not all over NVLink: {said}",
            means="a ring is as fast as its slowest pair",
            do="nvidia-smi nvlink -s; where links are down, stop and start the instance",
        )
    else:
        slowest = "SYS" if "SYS" in ways else ways[-1]
        yield note(
            "topology",
            f"{count} GPUs without NVLink: {said}",
            means=f"collectives cross {WAYS.get(slowest, slowest)}: expect sharding (FSDP) to beat tensor parallelism",
        )
    if len([way for way in ways if nvlinks(way)]) > 1:
        yield warn(
            "topology", f"pairs differ in their NVLinks: {said}", means="links may be down", do="nvidia-smi nvlink -s"
        )
