"""The container's calls to AWS, by its task role: objects of the batch, and the table's items. boto3 comes late."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from farmhand.cloud.ending import ContainerEnds, StopClock, say
from farmhand.core import leases
from farmhand.core.shard import EXIT_CONFIG, EXIT_LEFT, PK, BatchItem, batch_pk, read_item

#: Short enough for several tries between SIGTERM and the end.
_CONNECT_S, _READ_S, _TRIES = 4, 15, 3
#: Seconds to keep trying before anything has been done.
_FIRST_S = 60.0
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: What no later try changes. Everything else may pass: a role's rights and its credentials too can come late.
_FINAL = frozenset(
    {
        *("NoSuchKey", "NoSuchBucket", "404", "ResourceNotFoundException", "ValidationException", "InvalidBucketName"),
        *("ParamValidationError", "NoRegionError", "InvalidEndpointURLError", "UnknownServiceError"),
    }
)
_EXISTS = frozenset({"PreconditionFailed", "412"})
_CONDITION = "ConditionalCheckFailedException"


class CallFailed(Exception):
    """A call to AWS failed, after botocore's own tries. `passing`: a later one may succeed."""

    def __init__(self, doing: str, error: Exception) -> None:
        self.code = _code(error)
        self.passing = self.code not in _FINAL
        #: The item that an update's condition did not fit.
        self.item: dict[str, Any] = dict((getattr(error, "response", None) or {}).get("Item") or {})
        super().__init__(f"{doing}: {self.code}: {' '.join(str(error).split())[:400]}")


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    return code or type(error).__name__


def _of_aws(error: Exception) -> bool:
    return type(error).__module__.startswith(("botocore", "boto3", "s3transfer", "urllib3"))


def called(doing: str, call: Callable[[], Any]) -> Any:
    """Return what a call to AWS returns. Raise CallFailed if AWS or the way to it fails."""
    try:
        return call()
    except Exception as error:
        if not _of_aws(error):
            raise
        raise CallFailed(doing, error) from None


class AwsClients(NamedTuple):
    """The services that a container calls; sts only for a federation."""

    s3: Any
    dynamodb: Any
    sts: Any


def connect() -> AwsClients:
    """Return the clients, with the credentials of the task role. Raise ContainerEnds if there is no boto3."""
    return AwsClients(*clients(*AwsClients._fields))


def region() -> str | None:
    """Return the region. boto3 itself reads AWS_DEFAULT_REGION only; Fargate sets AWS_REGION."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def clients(*services: str) -> list[Any]:
    """Return clients of one session, which reads what they share once, with the task role's credentials.

    Raise ContainerEnds.
    """
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise ContainerEnds(EXIT_CONFIG, f"the image has no {error.name}: push an image with it") from None
    config = Config(
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        user_agent_extra="farmhand-agent",
    )
    try:
        session = boto3.Session(region_name=region())
        return [session.client(name, config=config) for name in services]
    except Exception as error:
        if not _of_aws(error) and not isinstance(error, ValueError):
            raise
        raise ContainerEnds(EXIT_CONFIG, f"preparing AWS: {error}") from None


def refusal(service: str, method: str, **arguments: Any) -> str:
    """Return AWS's code for refusing a call, "" if it is carried out. What it returns is thrown away."""
    try:
        called(method, lambda: getattr(clients(service)[0], method)(**arguments))
    except CallFailed as error:
        return error.code
    return ""


def patiently(call: Callable[[], Any], clock: StopClock, within_s: float = _FIRST_S) -> Any:
    """Return what `call` returns, in several tries. Raise ContainerEnds.

    This is for the beginning: nothing has been paid for yet, and another attempt can begin again.
    """
    until = time.monotonic() + within_s
    for number in range(1000):
        try:
            return call()
        except CallFailed as error:
            if not error.passing:
                raise ContainerEnds(EXIT_CONFIG, str(error)) from None
            if time.monotonic() > until or clock.asked:
                raise ContainerEnds(EXIT_LEFT, str(error)) from None
            say(str(error))
            clock.pause(_PAUSES_S[min(number, len(_PAUSES_S) - 1)])
    raise AssertionError


class ContainerBucket:
    """The bucket `name`. Every method raises CallFailed."""

    def __init__(self, s3: Any, name: str) -> None:
        self._s3 = s3
        self._name = name

    def get(self, key: str) -> bytes:
        """Return an object."""

        def read() -> bytes:
            body: bytes = self._s3.get_object(Bucket=self._name, Key=key)["Body"].read()
            return body

        found: bytes = called(f"reading {key}", read)
        return found

    def fetch(self, key: str, target: Path) -> None:
        """Write an object to a file."""
        called(f"reading {key}", lambda: self._s3.download_file(self._name, key, str(target)))

    def size(self, key: str) -> int:
        """Return the bytes of an object."""
        found = called(f"looking at {key}", lambda: self._s3.head_object(Bucket=self._name, Key=key))
        return int(found["ContentLength"])

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, in their order."""

        def pages() -> Iterator[str]:
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix):
                yield from (str(row["Key"]) for row in page.get("Contents", ()))

        found: list[str] = called(f"listing {prefix}", lambda: list(pages()))
        return found

    def put_new(self, key: str, body: bytes) -> bool:
        """Make an object. Return False if there is another one with that key.

        The same object counts as made: the answer to an earlier try was lost. A 409, two writes at once, is raised as
        CallFailed, and is to be tried again. Source: PutObject, If-None-Match.
        """
        try:
            called(
                f"writing {key}", lambda: self._s3.put_object(Bucket=self._name, Key=key, Body=body, IfNoneMatch="*")
            )
        except CallFailed as error:
            if error.code not in _EXISTS:
                raise
            return self.get(key) == body
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Make an object from a file, which may be larger than memory."""
        called(f"writing {key}", lambda: self._s3.upload_file(str(path), self._name, key))


class ContainerTable:
    """The table `name`, and in it the item of `batch`. Every method raises CallFailed."""

    def __init__(self, dynamodb: Any, name: str, batch: str) -> None:
        self._dynamodb = dynamodb
        self._name = name
        self.batch = batch

    def item(self) -> BatchItem | None:
        """Return the batch's item, None if there is none."""
        key = {PK: {"S": batch_pk(self.batch)}}
        found = called(
            "reading the batch's item",
            lambda: self._dynamodb.get_item(TableName=self._name, Key=key, ConsistentRead=True),
        )
        return read_item(found["Item"]) if found.get("Item") else None

    def update(self, arguments: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Apply an update of farmhand.core.leases. Return whether its condition held, and the item's attributes."""
        try:
            done = called(
                "updating the batch's item", lambda: self._dynamodb.update_item(TableName=self._name, **arguments)
            )
        except CallFailed as error:
            if error.code != _CONDITION:
                raise
            return False, error.item
        return True, dict(done.get("Attributes") or {})

    def stop(self, reason: str, detail: str) -> None:
        """Stop the batch, unless it is stopped."""
        self.update(leases.stop(self.batch, reason, detail[:500]))
