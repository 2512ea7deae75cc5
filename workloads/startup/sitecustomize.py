"""Runs as Python starts (https://docs.python.org/3/library/site.html): makes each rank of a watched job answer.

run.sh puts this folder on PYTHONPATH, so that the user's own script is a rank as good as a workload of ours. Another
sitecustomize that this one hides runs as well.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _run_hidden() -> None:
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  (pathlib costs every start 5 ms)
    others = [folder for folder in sys.path if os.path.abspath(folder) != here]  # noqa: PTH100
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if os.environ.get("ROOFLAB_WATCH") and "RANK" in os.environ:
    import_module("rooflab_witness").attend()
_run_hidden()
