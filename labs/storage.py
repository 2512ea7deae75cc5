"""FSx for Lustre as a lab may ask for it: what `-c storage=` means, and the capacities that AWS sells.

Source of the capacity steps:
https://docs.aws.amazon.com/fsx/latest/LustreGuide/increase-storage-capacity.html,
https://docs.aws.amazon.com/fsx/latest/LustreGuide/efa-file-systems.html
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one value of `-c storage=` means."""

    deployment: str
    """DeploymentType."""
    smallest_gib: int
    """The least that AWS sells of it, and what a lab gets unless it asks for more."""
    step_gib: int
    """Capacities above the smallest are multiples of this."""
    mbps_per_tib: int | None
    """PerUnitStorageThroughput; None for scratch, where it is fixed at 200."""
    efa: bool = False
    """Whether clients reach it over EFA."""

    def demand(self, gib: int) -> None:
        """Refuse a capacity that AWS does not sell.

        Raises:
            ValueError: names the capacities around it.
        """
        if gib == self.smallest_gib or (gib > 0 and gib % self.step_gib == 0):
            return
        below = max(self.smallest_gib, gib // self.step_gib * self.step_gib)
        above = max(self.smallest_gib, (gib // self.step_gib + 1) * self.step_gib)
        near = " or ".join(str(one) for one in sorted({below, above}))
        raise ValueError(f"storage_gib={gib} is not sold: write {near}")


SIZES: dict[str, Size] = {
    "scratch": Size(deployment="SCRATCH_2", smallest_gib=1200, step_gib=2400, mbps_per_tib=None),
    **{
        f"persistent-{rate}": Size(deployment="PERSISTENT_2", smallest_gib=1200, step_gib=2400, mbps_per_tib=rate)
        for rate in (125, 250, 500, 1000)
    },
    "efa": Size(deployment="PERSISTENT_2", smallest_gib=4800, step_gib=4800, mbps_per_tib=1000, efa=True),
}
"""By name; "none" is no file system at all."""
STORAGE = ("none", *SIZES)
