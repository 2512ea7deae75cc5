"""A lab in a moto account, for the tests of how it is priced, swept and ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from guard.inventory import Item
from operate.account import Account
from tests.guard.bench import Bench, moto_bench


class MotoAccount(Account):
    """The account of a bench, with a clock that tests set."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.ahead = timedelta(0)

    def client(self, service: str, region: str = "") -> Any:
        """The bench's client, so that its answers count."""
        return self.bench.clients(service)

    def now(self) -> datetime:
        """Now, and as much later as the test wants."""
        return datetime.now(UTC) + self.ahead


@contextmanager
def moto_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoAccount]:
    """An account, for as long as the context lasts."""
    with moto_bench(monkeypatch) as bench:
        yield MotoAccount(bench)


def item(kind: str, *, state: str = "", **facts: Any) -> Item:
    """One thing as an inventory would hold it; "_" in a fact's name stands for a dot."""
    named = {name.replace("_", "."): value for name, value in facts.items()}
    return Item(kind=kind, id=f"{kind}-1", stack="Lab3Stack", state=state, facts=named)
