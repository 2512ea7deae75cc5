"""hello: does every node start what it is told to, and does its record come home?

It computes nothing. A run on many nodes goes through connections, archives, processes and files: what that costs by
itself, and how it looks when a few of many nodes fail, is seen best when the work in the middle takes no time. So this
imports no torch (2 s of a CPU on every node) and asks the driver only for the GPUs' names.

Output: one line, and one record without measurements, whose note says which host this is, which rank, which devices.

    python -m workloads.hello
    fab run-lab --lab 3 --only hello
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from labs.results import Machine, Record
from workloads.diagnosis.command import ask
from workloads.processor import cpu_name


class Parser(argparse.ArgumentParser):
    """A wrong flag is one line on stderr and exit code 2, as in every workload."""

    def error(self, message: str) -> NoReturn:
        """End the process with `message`."""
        self.exit(2, f"hello: {message}; `python -m workloads.hello --help` lists the flags\n")


def devices() -> tuple[str, ...]:
    """The name of each GPU that the driver lists; of the CPU where it lists none."""
    answer = ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    names = tuple(line.strip() for line in answer.text.splitlines() if line.strip())
    return names if answer.code == 0 and names else (cpu_name(),)


def greet(host: str, found: Sequence[str], environment: Mapping[str, str], *, began: float) -> Record:
    """The record of one node; its rank is its number among the nodes. `began`: seconds since the epoch.

    Raises:
        ValueError: the launcher's variables are not as the launcher sets them.
    """
    node = environment.get("ROOFLAB_NODE") or "node0"
    nodes, rank = _whole("ROOFLAB_NODES", environment.get("ROOFLAB_NODES") or "1"), _whole("ROOFLAB_NODE", node[4:])
    lab, price = environment.get("ROOFLAB_LAB"), environment.get("ROOFLAB_USD_PER_HOUR")
    return Record(
        workload="hello",
        machine=Machine(
            hostname=host,
            device=found[0],
            devices=len(found),
            instance_type=environment.get("ROOFLAB_INSTANCE_TYPE") or None,
        ),
        measurements=(),
        run=environment.get("ROOFLAB_RUN", ""),
        lab=_whole("ROOFLAB_LAB", lab) if lab else None,
        node=node,
        nodes=nodes,
        config={"rank": rank},
        git_commit=environment.get("ROOFLAB_COMMIT") or None,
        started=datetime.fromtimestamp(began, UTC).isoformat(timespec="milliseconds"),
        wall_s=time.time() - began,
        usd_per_hour=float(price) if price else None,
        notes=(f"rank {rank} of {nodes} on {host}: {len(found)} × {found[0]}",),
    )


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name} ends in {text!r}, which is no number: set it as the launcher does, or unset it")
    return int(text)


def main(arguments: Sequence[str]) -> None:
    """Run on these flags.

    Raises:
        SystemExit: wrong flags or environment, with exit code 2.
    """
    parser = Parser(prog="hello", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/local"), help="folder for the record")
    out, began = parser.parse_args(arguments).out, time.time()
    try:
        record = greet(platform.node(), devices(), os.environ, began=began)
    except ValueError as error:
        parser.error(str(error))
    record.write(out)
    print(f"hello from {record.notes[0]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
