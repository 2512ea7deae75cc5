"""What went wrong and what to do about it, as one line.

A `Problem` is the only exception that a verb shows to its user: `cause: remedy`, no traceback.
"""

from collections.abc import Sequence


class Problem(Exception):
    """Something that the user, the account or a node has to change before the verb can succeed."""

    def __init__(self, cause: str, remedy: str, *, exit_code: int = 1, details: Sequence[str] = ()) -> None:
        """`cause` says what is wrong, `remedy` what to do; `exit_code` (1 to 255) is what the shell gets. `details`:
        where it is several nodes' trouble, a line each, said before it."""
        assert 0 < exit_code < 256, exit_code
        self.details = tuple(details)
        self.cause = " ".join(cause.split()).rstrip(".:")
        self.remedy = " ".join(remedy.split())
        self.exit_code = exit_code
        super().__init__(f"{self.cause}: {self.remedy}")
