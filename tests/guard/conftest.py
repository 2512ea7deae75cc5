"""Every test of the guard has an account of its own."""

from collections.abc import Iterator

import pytest

from tests.guard.bench import Bench, moto_bench


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with moto_bench(monkeypatch) as made:
        yield made
