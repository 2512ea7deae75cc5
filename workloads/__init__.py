"""What is measured: one module a workload, each runs alone as `python -m workloads.NAME`. torch, numpy, labs."""

import logging

# transformers imports torchao where it is installed, and that tells on stderr, each time, which of its CUDA kernels a
# CPU build of torch cannot load and what torch means to forbid one day: nothing that a log of ours should hold. Nor is
# how many collectives DTensor takes to gather what is split twice: their bytes are counted and told.
for _talkative in ("torchao", "torch.utils._pytree", "torch.distributed.tensor._redistribute"):
    logging.getLogger(_talkative).setLevel(logging.ERROR)
