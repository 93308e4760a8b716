"""The bucket of batches: whole objects by key. The bucket's own default encrypts them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from farmhand.aws.client import Aws
from farmhand.aws.errors import code_of, explained
from farmhand.core.errors import FarmhandError

#: AWS's codes for a key without an object, and for two writes at once, of which perhaps none was carried out.
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})
#: Seconds before such a write is tried again, which botocore does not do. Source: PutObject, If-None-Match.
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Bytes of an object that are read at once.
_PIECE = 1024 * 1024


class BatchBucket:
    """The environment's bucket. Every method raises FarmhandError for what `explained` knows."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.name = aws.names.bucket

    @property
    def _s3(self) -> Any:
        return self._aws.client("s3")

    def get(self, key: str) -> bytes | None:
        """Return the object at `key`, None if there is none."""
        with explained(f"reading {key} from the bucket {self.name}"):
            try:
                return bytes(self._s3.get_object(Bucket=self.name, Key=key)["Body"].read())
            except Exception as error:
                if code_of(error) in _MISSING:
                    return None
                raise

    def lines(self, key: str) -> Iterator[bytes]:
        """Yield the lines of the object at `key`, without their ends; none if there is no object."""
        with explained(f"reading {key} from the bucket {self.name}"):
            try:
                body = self._s3.get_object(Bucket=self.name, Key=key)["Body"]
            except Exception as error:
                if code_of(error) not in _MISSING:
                    raise
            else:
                yield from body.iter_lines(_PIECE)

    def put(self, key: str, body: bytes | IO[bytes]) -> None:
        """Write an object, replacing one that is there."""
        with explained(f"writing {key} to the bucket {self.name}"):
            self._s3.put_object(Bucket=self.name, Key=key, Body=body)

    def put_new(self, key: str, body: bytes) -> bool:
        """Write an object and return True, or return False if there is another one at `key`."""
        with explained(f"writing {key} to the bucket {self.name}"):
            for pause in (*_PAUSES_S, None):
                try:
                    self._s3.put_object(Bucket=self.name, Key=key, Body=body, IfNoneMatch="*")
                    break
                except Exception as error:
                    if code_of(error) == "PreconditionFailed":
                        # Also if it was written by a try of this very call whose answer was lost.
                        return self.get(key) == body
                    if code_of(error) not in _CONFLICT or pause is None:
                        raise
                    time.sleep(pause)
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix`, in their order; none if there is no bucket."""
        with explained(f"listing {prefix} of the bucket {self.name}"):
            try:
                for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                    yield from (str(item["Key"]) for item in page.get("Contents", []))
            except Exception as error:
                if code_of(error) != "NoSuchBucket":
                    raise

    def upload(self, key: str, path: Path) -> str:
        """Upload a file and return its SHA-256 in hex."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with explained(f"uploading {path.name} to the bucket {self.name}"):
            self._s3.upload_file(str(path), self.name, key)
        return digest

    def download(self, key: str, path: Path, most: int, sha256: str) -> None:
        """Download an object of at most `most` bytes with that SHA-256. Raise FarmhandError if it is another one."""
        with explained(f"reading {key} from the bucket {self.name}"):
            body = self._s3.get_object(Bucket=self.name, Key=key)["Body"]
            digest, size = hashlib.sha256(), 0
            with path.open("wb") as file:
                while piece := body.read(_PIECE):
                    size += len(piece)
                    if size > most:
                        raise FarmhandError(f"{key} is larger than {most} bytes", code="too_large")
                    digest.update(piece)
                    file.write(piece)
        if digest.hexdigest() != sha256:
            raise FarmhandError(f"{key} is not what the task has left: its SHA-256 differs", code="bad_answer")
