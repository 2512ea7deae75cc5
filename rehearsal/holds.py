"""How long things stay on their way: an instance that shuts down, a file system that is made or deleted.

On AWS this takes minutes. Here it takes fractions of a second, but never nothing, so that whoever must wait is seen to
wait. Times are of the rehearsal's clock: `advance` ends them too.
"""

from datetime import datetime

from rehearsal import clock
from rehearsal.faults import Faults

_USUAL_S = {
    "instance": 0.1, "file-system-create": 0.2, "file-system-delete": 0.2, "association-create": 0.1,
    "association-delete": 0.1, "endpoint-create": 0.1, "endpoint-delete": 0.1, "backup": 0.1, "image": 0.2,
}  # fmt: skip


class Holds:
    """Seconds that each kind of passage takes. A fault that lengthens one holds for what is under way, too."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def over(self, kind: str, since: datetime) -> bool:
        """Whether a passage of this kind that began at `since` is over."""
        longer = {"file-system-create": self._faults.fsx_making_s, "file-system-delete": self._faults.fsx_going_s,
                  "image": self._faults.image_s}  # fmt: skip
        return (clock.now() - since).total_seconds() >= _USUAL_S[kind] + longer.get(kind, 0.0)
