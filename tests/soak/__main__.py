"""Whole lives of labs under random faults: python -m tests.soak --lives 1000 --seed 1

Each life is drawn from the seed and its number. Finished lives are kept in .rooflab/soak/seedN/lives.jsonl, so that a
soak that was ended goes on where it was; --life K repeats one alone and shows what it did.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from tests.soak import home
from tests.soak.plan import plan
from tests.soak.soak import Soak, end, live, prepare


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="whole lives of labs under random faults")
    parser.add_argument("--lives", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--life", type=int, help="this one alone")
    parser.add_argument(
        "--workers", type=int, default=2 * (os.cpu_count() or 1) + 1, help="a life waits more than it works"
    )
    parser.add_argument("--folder", type=Path, help="where it keeps what it does; .rooflab/soak/seedN of the clone")
    parser.add_argument("--afresh", action="store_true", help="forget the lives that are over")
    given = parser.parse_args()
    folder: Path = given.folder or home.ROOT / ".rooflab" / "soak" / f"seed{given.seed}"
    if given.afresh:
        shutil.rmtree(folder, ignore_errors=True)
    soak = Soak(folder, given.seed)
    prepare(folder)
    if not given.life:
        return soak.run(given.lives, given.workers)
    try:
        print(plan(given.seed, given.life))
        verdict = live(folder, given.seed, given.life, keep=True)
    finally:
        end(folder)
    soak.over = {given.life: {**verdict.as_json(), "survived": verdict.survived}}
    print(json.dumps(verdict.as_json(), indent=1))
    return soak.conclude([given.life])


if __name__ == "__main__":
    sys.exit(main())
