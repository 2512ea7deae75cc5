"""What every test of a workload needs: no launcher's variables, and a CPU even where there is a GPU."""

import os
from collections.abc import Iterator

import pytest
import torch

from labs.accelerators import by_driver_name
from workloads.contention import Contention
from workloads.device import Device, find_device


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a laptop: nothing says which run this is."""
    for name in os.environ:
        if name.startswith("ROOFLAB_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """As on a machine of one's own: what a record notes does not depend on who else tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Contention, "since", lambda _before: Contention(cores=2, load=0.5, waited=0.0))
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Test machines are shared; two threads that wait for each other are slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cpu() -> Device:
    """This machine's CPU."""
    return find_device("cpu")


@pytest.fixture
def l4() -> Device:
    """A CPU that passes for an L4: arithmetic here, roofs of there."""
    return Device(torch=torch.device("cpu"), name="NVIDIA L4", accelerator=by_driver_name("NVIDIA L4"))
