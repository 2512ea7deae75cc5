"""Send a run's finished records from a node to the results bucket: `python -m operate.ship RUN_FOLDER`.

Runs on the node after every workload, so that no death of node, lab or laptop loses a record. The values of the run's
secrets are blanked first, in the files themselves: whoever fetches them later may not know these. It never fails a run:
where it cannot send, it says so in one line and ends with exit code 0; the laptop still fetches over SSH.
"""

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from operate.secret import blank_file, values

_SHIPPED = ("records/*.json", "logs/*.log", "codes")
_TRIES = 6
"""While S3 says "slow down": the SDK's own waits grow to 20 s, and a node that is being ended has not so long."""


def key_prefix(run: str, node: str) -> str:
    """Where one node's part of a run lies in the bucket."""
    return f"results/{run}/{node}/"


def ship(folder: Path, *, bucket: str, run: str, node: str, s3: Any) -> list[str]:
    """Upload what is new or has grown since the last call; the names sent. Keys are flat: results/RUN/NODE/NAME."""
    marks = folder / "shipped"
    before = set(marks.read_text().splitlines()) if marks.exists() else set()
    sent = []
    for pattern in _SHIPPED:
        for path in sorted(folder.glob(pattern)):
            mark = f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"
            if mark in before:
                continue
            s3.put_object(Bucket=bucket, Key=key_prefix(run, node) + path.name, Body=path.read_bytes())
            before.add(mark)
            sent.append(path.name)
            marks.write_text("\n".join(sorted(before)) + "\n")
    return sent


def blank_secrets(folder: Path) -> None:
    """Blank the values of the run's secrets in all that is shipped, and in what ranks that failed left behind."""
    secrets = values(os.environ, os.environ.get("ROOFLAB_SECRETS", "").split())
    for pattern in (*_SHIPPED, "hang/*/*"):
        for path in folder.glob(pattern):
            blank_file(path, secrets)


def main(folder: Path) -> None:
    """Ship `folder` to where the environment says. Prints one line, whatever happens."""
    try:
        blank_secrets(folder)
    except OSError as error:
        print(f"warning: not shipped, for secrets could not be blanked ({error}); fab fetches over SSH")
        return
    bucket = os.environ.get("ROOFLAB_BUCKET")
    if not bucket:
        print("warning: not shipped, for ROOFLAB_BUCKET is not set; fab fetches over SSH")
        return
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        print("warning: not shipped, for this node's python has no boto3; fab fetches over SSH")
        return
    try:
        retries = {"mode": "standard", "total_max_attempts": 2}
        s3 = boto3.client("s3", config=Config(connect_timeout=5, read_timeout=30, retries=retries))
        for left in reversed(range(_TRIES)):
            try:
                sent = ship(
                    folder, bucket=bucket, run=os.environ["ROOFLAB_RUN"], node=os.environ["ROOFLAB_NODE"], s3=s3
                )
                break
            except ClientError as error:
                if not left or error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                    raise
                time.sleep(random.uniform(0.5, 1.5))
    except (BotoCoreError, ClientError, OSError) as error:
        print(f"warning: not shipped to {bucket} ({' '.join(str(error).split())}); fab fetches over SSH")
        return
    print(f"shipped {', '.join(sent) or 'nothing new'} to s3://{bucket}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
