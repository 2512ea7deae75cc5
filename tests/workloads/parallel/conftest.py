"""A smaller model under mistral-nano's name, where a test asks for it."""

import pytest

from labs.models import MODELS
from tests.workloads.parallel.small import SMALL


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """mistral-nano is `SMALL`."""
    monkeypatch.setitem(MODELS, "mistral-nano", SMALL)
