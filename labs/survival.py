"""When a node ends before its work does: what a workload then says by its exit code, and what can be saved in time."""

from dataclasses import dataclass

INTERRUPTED = 75
"""Exit code of a workload that was told to end, has saved what it had and resumes where it is started again:
EX_TEMPFAIL of sysexits.h."""
PEER_LOST = 76
"""Exit code of a rank that another rank has left alone; started again, all resume from the newest whole checkpoint:
EX_PROTOCOL of sysexits.h."""
NOTICE_S = 120.0
"""Between EC2's notice and the end of a spot instance
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html)."""
RESERVE_S = 20.0
"""Of the notice that is not for writing: nodes look for one every 5 s, the step at work ends, files are summed."""
STATE_BYTES = 12
"""A parameter's in a checkpoint: weight and two moments in fp32."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A checkpoint on its way to a place for files."""

    bytes: int
    """Of the state, over all ranks."""
    rate: float
    """B/s that the place takes from all ranks together."""

    def __post_init__(self) -> None:
        """Check both. Raises: ValueError that names field, value and what is allowed."""
        if self.bytes < 0:
            raise ValueError(f"bytes={self.bytes} is no size of a checkpoint: write 0 or more")
        if not self.rate > 0:
            raise ValueError(f"rate={self.rate:g} writes nothing: write a rate in B/s above 0")

    @property
    def seconds(self) -> float:
        """That the writing takes at least."""
        return self.bytes / self.rate

    def fits(self, notice_s: float = NOTICE_S) -> bool:
        """Whether it can be written between the notice and the end, with the reserve left."""
        return self.seconds + RESERVE_S <= notice_s

    def rate_needed(self, notice_s: float = NOTICE_S) -> float:
        """B/s at which it would just fit."""
        return self.bytes / (notice_s - RESERVE_S)


def saved_every(most_lost: int) -> int:
    """Steps between the starts of two checkpoints, so that never more than `most_lost` steps stand unsaved.

    A checkpoint is written while the training goes on; half of the steps that may be lost are given it for that.
    """
    return max(1, most_lost // 2)
