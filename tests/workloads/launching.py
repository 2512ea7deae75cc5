"""Starts workloads as a launcher does: in processes of their own, by torchrun."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("ROOFLAB_")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


def torchrun(ranks: int, *arguments: str, limit_s: float = 500, **environment: str) -> subprocess.CompletedProcess[str]:
    """`torchrun` on these arguments, as run.sh starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = ["--nnodes", "1", "--nproc-per-node", str(ranks), "--node-rank", "0", "--master-addr", "127.0.0.1"]
    line = [sys.executable, "-m", "torch.distributed.run", *rendezvous, "--master-port", str(port), *arguments]
    return subprocess.run(
        line, cwd=ROOT, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=limit_s, check=False
    )
