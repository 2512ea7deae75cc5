"""What the links carry: copies between host and GPU, between GPUs, and on a machine without GPUs in its memory.

A link's roof is its lanes' rate (labs/links.py) as nvidia-smi names the link; headers take some 10 % of it. Each copy
is checked: what arrives is compared with what was sent.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from labs.links import nvlink_roof, pcie_roof
from labs.results import Measurement, Roof
from labs.roofs import memory_bound
from workloads.command import CheckFailed
from workloads.device import Device, time_each
from workloads.diagnosis.gpus import Card
from workloads.diagnosis.topology import Matrix, nvlinks

SAMPLES = 10
BYTES = {True: 256 * 2**20, False: 64 * 2**20}
"""Of one copy, by whether the device is a GPU."""


def measure(device: Device, cards: Sequence[Card], matrix: Matrix, seed: int) -> Iterator[Measurement]:
    """Every link's rate.

    Raises:
        CheckFailed: what arrived is not what was sent.
    """
    generator = torch.Generator().manual_seed(seed)
    sent = torch.randint(256, (BYTES[device.cuda],), dtype=torch.uint8, generator=generator)
    if not device.cuda:
        got = torch.empty_like(sent)
        roof = memory_bound(device.name, device.accelerator).roof
        yield copied("copy in memory", device, lambda: got.copy_(sent), sent, lambda: got, 2, roof,
                     f"{device.name} is not in labs/accelerators.py")  # fmt: skip
        return
    pinned = sent.pin_memory()
    for index in range(torch.cuda.device_count()):
        yield from _host_copies(device, index, pinned, roof_of(cards, index))
    first = pinned.to(torch.device("cuda", 0))
    for index in range(1, torch.cuda.device_count()):
        yield _peer_copy(device, first, index, *between(cards, matrix, index))


def _peer_copy(device: Device, first: Tensor, index: int, roof: Roof | None, why: str) -> Measurement:
    """From GPU 0 to another, over whatever lies between them."""
    other = torch.empty_like(first, device=torch.device("cuda", index))
    return copied(f"GPU 0 to GPU {index}", device, lambda: other.copy_(first, non_blocking=True), first, lambda: other,
                  1, roof, why)  # fmt: skip


def _host_copies(device: Device, index: int, pinned: Tensor, roof: Roof | None) -> Iterator[Measurement]:
    """Both ways between the host's pinned memory and one GPU."""
    where = torch.device("cuda", index)
    there, back = torch.empty_like(pinned, device=where), torch.empty_like(pinned).pin_memory()
    why = "nvidia-smi does not tell the link's generation and lanes"
    with torch.cuda.device(where):
        yield copied(f"host to GPU {index}", device, lambda: there.copy_(pinned, non_blocking=True), pinned,
                     lambda: there, 1, roof, why)  # fmt: skip
        yield copied(f"GPU {index} to host", device, lambda: back.copy_(there, non_blocking=True), pinned,
                     lambda: back, 1, roof, why)  # fmt: skip


def roof_of(cards: Sequence[Card], index: int) -> Roof | None:
    """A GPU's link to the host."""
    if index >= len(cards):
        return None
    card = cards[index]
    return pcie_roof(card.whole("pcie.link.gen.max"), card.whole("pcie.link.width.max"))


def between(cards: Sequence[Card], matrix: Matrix, index: int) -> tuple[Roof | None, str]:
    """The link from GPU 0 to another, or why it is not known."""
    links = nvlinks(matrix.get((0, index), ""))
    if links and index < len(cards):
        roof = nvlink_roof(cards[index].told.get("name", ""), links)
        return roof, "the rate of this GPU's NVLinks is not in labs/links.py"
    roofs = [roof for roof in (roof_of(cards, 0), roof_of(cards, index)) if roof]
    return min(roofs, key=lambda roof: roof.value, default=None), "nvidia-smi does not tell the link"


def copied(name: str, device: Device, step: Callable[[], object], sent: Tensor, got: Callable[[], Tensor], times: int,
           roof: Roof | None, why: str) -> Measurement:  # fmt: skip
    """Time one copy and check it; `times` each byte passes, 2 where it is read from and written to the same memory.

    Raises:
        CheckFailed: what arrived is not what was sent.
    """
    step()
    samples_s = time_each(device, step, SAMPLES, lead=1)
    device.synchronize()
    if not torch.equal(got().cpu(), sent.cpu()):
        raise CheckFailed(f"{name}: what arrived is not what was sent")
    return Measurement(
        name=name, value=times * sent.nbytes / statistics.median(samples_s), unit="B/s",
        estimator=f"from the median of {len(samples_s)}", config={"bytes": sent.nbytes, "times": times},
        samples_s=samples_s, roof=roof, no_roof_because="" if roof else why, checked="every byte arrived",
    )  # fmt: skip
