"""Objects of S3 as files of a file system: what a data repository association imports.

https://docs.aws.amazon.com/fsx/latest/LustreGuide/autoimport-data-repo-dra.html
"""

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID

_CHANGES = ("put_object", "delete_object", "copy_object", "complete_multipart_upload")


@dataclass(kw_only=True)
class Import:
    """One association's side of a bucket. A file that a node changed is the node's until its object changes."""

    bucket: str
    prefix: str
    """With a "/" at its end, or ""."""
    folder: Path
    """Where its files stand."""
    events: frozenset[str]
    """Of NEW, CHANGED and DELETED: what is followed after the first import."""
    known: dict[str, str] = field(default_factory=dict)
    """ETags of the objects, as far as they have been looked at."""

    def first(self, *, files: bool) -> None:
        """Note the objects that there are; with `files`, make a file of each."""
        self._follow({"NEW"} if files else set())

    def follow(self) -> None:
        """Do what the events ask for."""
        self._follow(self.events)

    def _follow(self, events: frozenset[str] | set[str]) -> None:
        bucket = _buckets().get(self.bucket)
        found = {key: item for key, item in bucket.keys.items() if key.startswith(self.prefix)} if bucket else {}
        for key, item in found.items():
            event = "NEW" if key not in self.known else "CHANGED"
            if self.known.get(key) != item.etag and event in events:
                self._write(key, item)
            self.known[key] = item.etag
        for key in self.known.keys() - found.keys():
            del self.known[key]
            if "DELETED" in events and (path := self._path(key)):
                path.unlink(missing_ok=True)

    def _write(self, key: str, item: Any) -> None:
        if path := self._path(key):
            (path if key.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not key.endswith("/"):
                path.write_bytes(item.value)

    def _path(self, key: str) -> Path | None:
        relative = PurePosixPath(key.removeprefix(self.prefix))
        if ".." in relative.parts or relative.is_absolute():
            warnings.warn(f"s3://{self.bucket}/{key} cannot be a file: its name leads out of the folder", stacklevel=2)
            return None
        return self.folder / relative


class Repository:
    """All imports. Buckets tell it when they change."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._imports: dict[str, Import] = {}
        self._watching = False

    def add(self, id: str, item: Import, *, files: bool) -> None:
        """Begin to import; with `files`, what there is already, too."""
        with self._lock:
            self._watch()
            item.folder.mkdir(parents=True, exist_ok=True)
            item.first(files=files)
            self._imports[id] = item

    def _watch(self) -> None:
        from moto.s3.models import S3Backend  # late, as below

        if not self._watching:
            for name in _CHANGES:
                setattr(S3Backend, name, self._watched(getattr(S3Backend, name)))
            self._watching = True

    def remove(self, id: str) -> None:
        """Import no more; the files stay."""
        with self._lock:
            self._imports.pop(id, None)

    def _watched(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def watched(backend: Any, *args: Any, **given: Any) -> Any:
            result = change(backend, *args, **given)
            with self._lock:
                for item in self._imports.values():
                    item.follow()
            return result

        return watched


def exists(bucket: str) -> bool:
    """Whether there is such a bucket."""
    return bucket in _buckets()


def _buckets() -> dict[str, Any]:
    from moto.s3.models import s3_backends  # late: 30 ms that a rehearsal without associations does not need

    found: dict[str, Any] = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets
    return found
