"""Fixtures of the rehearsal's tests."""

from tests.rehearsal.worlds import lab, world

__all__ = ["lab", "world"]
