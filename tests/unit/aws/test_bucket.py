"""Writing an object once, where S3 says that it is taken or that another write is under way."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from farmhand.aws.places.bucket import BatchBucket
from farmhand.core.errors import FarmUnreachable


class OneKey:
    """S3 with one key. `answers` are the codes of the next writes, "" for one that is carried out."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.body: bytes | None = None

    def put_object(self, **given: Any) -> None:
        code = self.answers.pop(0) if self.answers else ""
        code = code or ("PreconditionFailed" if self.body is not None else "")
        if code:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")
        self.body = given["Body"]

    def get_object(self, **_given: Any) -> dict[str, Any]:
        if self.body is None:
            raise ClientError({"Error": {"Code": "NoSuchKey", "Message": "no"}}, "GetObject")
        return {"Body": io.BytesIO(self.body)}


@pytest.mark.parametrize(
    ("answers", "there", "written"),
    [
        ((), None, True),
        (("ConditionalRequestConflict",), None, True),
        (("ConditionalRequestConflict",) * 2, None, True),
        (("ConditionalRequestConflict",) * 5, None, True),
        (("ConditionalRequestConflict",), b"another", False),
        (("ConditionalRequestConflict",), b"mine", True),
        ((), b"another", False),
        ((), b"mine", True),
    ],
)
def test_a_write_that_met_another_one_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...], there: bytes | None, written: bool
) -> None:
    """See apache/opendal#6741: after such an answer it may be that nobody's object is there."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    s3 = OneKey(*answers)
    s3.body = there
    aws = SimpleNamespace(names=SimpleNamespace(bucket="b"), client=lambda _name: s3)
    assert BatchBucket(cast(Any, aws)).put_new("k", b"mine") is written
    if there is None:
        assert s3.body == (b"mine" if written else None)


def test_a_write_that_always_meets_another_one_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    s3 = OneKey(*["ConditionalRequestConflict"] * 6)
    aws = SimpleNamespace(names=SimpleNamespace(bucket="b"), client=lambda _name: s3)
    with pytest.raises(FarmUnreachable, match="writing k"):
        BatchBucket(cast(Any, aws)).put_new("k", b"mine")
    assert s3.body is None
