"""What a link between devices carries at most, one way.

PCIe: transfers per second × lanes × 128/130 for the line code (8/10 before generation 3), PCI Express Base
Specification; packet headers are not counted off. NVLink: bytes per second of one link, NVIDIA's white papers of GA100,
GH100 and Blackwell.
"""

from labs.accelerators import by_driver_name
from labs.results import Roof

_TRANSFERS = {1: 2.5e9, 2: 5e9, 3: 8e9, 4: 16e9, 5: 32e9}
_NVLINK = {"A100": 25e9, "H100": 25e9, "H200": 25e9, "B200": 50e9, "B300": 50e9}


def pcie_bytes_per_s(generation: int, lanes: int) -> float | None:
    """Most bytes per second one way; None for a generation that is not listed."""
    if generation not in _TRANSFERS:
        return None
    code = 128 / 130 if generation >= 3 else 8 / 10
    return _TRANSFERS[generation] * lanes * code / 8


def pcie_roof(generation: int | None, lanes: int | None) -> Roof | None:
    """That as a roof; None where the link is not known."""
    most = pcie_bytes_per_s(generation, lanes) if generation and lanes else None
    return None if most is None else Roof(value=most, source=f"PCIe {generation}.0 ×{lanes}, one way")


def nvlink_roof(device: str, links: int) -> Roof | None:
    """Most bytes per second one way over `links` bonded NVLinks of the GPU whose driver name is `device`; None for one
    that is not listed."""
    known = by_driver_name(device)
    rate = _NVLINK.get(known.ec2_name) if known else None
    if rate is None:
        return None
    return Roof(value=links * rate, source=f"{links} NVLinks of {rate / 1e9:.0f} GB/s one way")
