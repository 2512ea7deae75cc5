"""One node's doctor as a process of its own, with what is unusual about it: `python -m …node WORK AHEAD_S FLAGS`."""

import os
import sys
import time

from tests.workloads.connection.faults import WORK
from workloads.connection.station import Station
from workloads.connectivity import main

if __name__ == "__main__":
    work, ahead_s = sys.argv[1], float(sys.argv[2])
    station = Station(os.environ, clock=lambda: time.time() + ahead_s)
    station.open()
    from workloads.command import CheckFailed

    try:
        main(sys.argv[3:], early=station, work=WORK[work])
    except CheckFailed as failure:
        print(f"check failed: {failure}", flush=True)
        os._exit(1)
    os._exit(0)
