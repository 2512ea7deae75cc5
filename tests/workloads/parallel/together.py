"""All of Lab 2's workloads in one launch of real ranks: to start Python and torch takes longer than each of them.

torchrun --nproc-per-node 4 -m tests.workloads.parallel.together OUT
"""

import sys
from contextlib import nullcontext

from labs.models import MODELS
from tests.workloads.parallel.small import SMALL
from workloads import fsdp, mesh, scaling, split_gemm, tensor_parallel
from workloads.device import find_device
from workloads.group import Group, joined, place
from workloads.parallel import workload

FLAGS = ["--device", "cpu", "--batch", "1", "--sequence", "16", "--steps", "8"]


def main(out: str) -> None:
    """Each of them as its own command would, over one group."""
    MODELS["mistral-nano"] = SMALL
    here = place()
    with joined(here, find_device("cpu", here.local_rank)) as group:

        def same(_here: object, _device: object) -> nullcontext[Group]:
            return nullcontext(group)

        setattr(workload, "joined", same)  # noqa: B010  # a plain assignment is none that mypy allows
        split_gemm.main(["--device", "cpu", "--shape", "64x32x128", "--iterations", "2", "--out", out])
        fsdp.main([*FLAGS, "--nodes-as", "2", "--out", out])
        tensor_parallel.main([*FLAGS, "--prompt", "8", "--new-tokens", "4", "--out", out])
        mesh.main([*FLAGS, "--tensor", "2", "--out", out])
        scaling.main([*FLAGS, "--out", out])


if __name__ == "__main__":
    main(sys.argv[1])
