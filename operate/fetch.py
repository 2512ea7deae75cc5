"""Bring a run's records and logs home: over SSH from every node that answers, from the bucket for those that do not."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from operate import laptop
from operate.cluster import Cluster
from operate.launch import Place
from operate.problem import Problem
from operate.shell import Outcome
from operate.ship import key_prefix

_FETCH_S = 600


@dataclass(kw_only=True)
class Fetched:
    """What came home, by node."""

    files: dict[str, list[str]] = field(default_factory=dict)
    """Paths below the run's folder."""
    missed: dict[str, str] = field(default_factory=dict)
    """Why a node's files could not be had over SSH."""
    codes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """By node and workload: (exit code, seconds)."""


def fetch_command(place: Place, run: str) -> str:
    """A compressed tar of what a run has to show, on stdout."""
    return (
        f"cd {place.run(run)} || exit 3\n"
        'set --; for name in records logs out hang codes run.log ship.log; do [ -e $name ] && set -- "$@" $name; done\n'
        # a log may grow while it is read: tar then ends with 1, and what it wrote is good
        'tar czf - "$@"; [ $? -le 1 ]'
    )


def fetch(cluster: Cluster, run: str, folder: Path, *, secrets: tuple[str, ...] = ()) -> Fetched:
    """Fetch `run` from all nodes into `folder`: records/, logs/NODE/, out/NODE/, hang/JOB/NODE/. `secrets` in them are
    blanked."""
    fetched = Fetched()
    results = cluster.shells.each(fetch_command(cluster.place, run), timeout_s=_FETCH_S)
    for name, result in results.items():
        if isinstance(result, Problem):
            fetched.missed[name] = result.cause
        elif result.code == 3:
            fetched.missed[name] = f"{name} has no run {run}"
        elif result.code != 0:
            fetched.missed[name] = f"{name}: {result.said}"
        else:
            fetched.files[name] = unpack(result, name, folder, secrets=secrets)
            fetched.codes[name] = read_codes(folder, name)
    return fetched


def unpack(outcome: Outcome, node: str, folder: Path, *, secrets: tuple[str, ...] = ()) -> list[str]:
    """Lay a node's archive into `folder`; only plain files, each where its kind belongs."""
    written = []
    with tarfile.open(fileobj=io.BytesIO(outcome.stdout), mode="r:gz") as tar:
        for entry in tar:
            path = PurePosixPath(entry.name)
            if not entry.isfile() or ".." in path.parts or path.suffix == ".partial":
                continue
            file = tar.extractfile(entry)
            assert file is not None
            written.append(_place(folder, node, path, file.read(), secrets))
    return written


def _place(folder: Path, node: str, path: PurePosixPath, data: bytes, secrets: tuple[str, ...]) -> str:
    top = path.parts[0]
    if top == "records":
        target = PurePosixPath("records", path.name)
    elif top == "out":
        target = PurePosixPath("out", node, *path.parts[1:])
    elif top == "hang":  # of a job that failed: what its ranks on this node left
        target = PurePosixPath("hang", path.parts[1], node, *path.parts[2:])
    else:
        target = PurePosixPath("logs", node, path.name)
    for secret in secrets:
        data = data.replace(secret.encode(), b"***")
    home = folder / target
    home.parent.mkdir(parents=True, exist_ok=True)
    laptop.write(home, data)  # `fab stop` and whoever follows the run fetch at the same time
    return str(target)


def read_codes(folder: Path, node: str) -> dict[str, tuple[int, int]]:
    """(exit code, seconds) of every workload that ended on `node`, from what was fetched."""
    path = folder / "logs" / node / "codes"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return {row[0]: (int(row[1]), int(row[2])) for row in rows if len(row) == 3}


def fetch_shipped(s3: Any, bucket: str, run: str, nodes: Iterable[str], folder: Path) -> list[str]:
    """Fetch what `nodes` shipped to `bucket` before they were lost; paths below `folder`.

    Raises:
        Problem: the bucket cannot be read.
    """
    written = []
    try:
        for node in nodes:
            prefix = key_prefix(run, node)
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", []):
                    name = PurePosixPath(item["Key"]).name
                    data = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                    kind = "records" if name.endswith(".json") else "logs"
                    written.append(_place(folder, node, PurePosixPath(kind, name), data, ()))
    except (BotoCoreError, ClientError) as error:
        raise Problem(
            f"the bucket {bucket} cannot be read ({error})",
            f"aws s3 sync s3://{bucket}/results/{quote(run)} results/{run}",
        ) from None
    return written
