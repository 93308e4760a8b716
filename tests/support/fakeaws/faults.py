"""Faults: the next calls of an action fail, are slow, or lose their connection."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from typing import Any

_XML = frozenset({"s3", "cloudformation", "sns", "iam", "sts", "ec2"})


@dataclass
class Fault:
    """What happens to the next `times` calls, after the first `skip`.

    `service` is the name that signs a request (s3, batch, dynamodb, monitoring for CloudWatch), `action` a part of the
    action's name: SubmitJob, "PUT /bucket/key" for S3, "POST /v1/submitjob" for Batch. `caller` is a part of the
    User-Agent: farmhand-agent in containers. "" is any. `after` says that the call is carried out before its answer is
    lost.
    """

    service: str = ""
    action: str = ""
    caller: str = ""
    times: int = 1
    skip: int = 0
    status: int = 0
    code: str = ""
    delay: float = 0.0
    reset: bool = False
    after: bool = False
    message: str = "injected"

    @property
    def answers(self) -> bool:
        """Whether it is an answer with an error."""
        return bool(self.status or self.code)

    def answer(self, service: str, *, cbor: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        """The status, the headers and the body of the error, in the form of the service."""
        status, code = self.status or (400 if "hrottl" in self.code else 500), self.code or "InternalError"
        if cbor:
            headers = [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]
            return status, headers, _cbor({"__type": code, "message": self.message})
        if service not in _XML:
            body = json.dumps({"__type": code, "message": self.message}).encode()
            return status, [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)], body
        error = f"<Error><Code>{code}</Code><Message>{self.message}</Message></Error>"
        text = error if service == "s3" else f"<ErrorResponse>{error}<RequestId>x</RequestId></ErrorResponse>"
        return status, [("Content-Type", "text/xml")], text.encode()


def _cbor(texts: dict[str, str]) -> bytes:
    """A map of at most 23 short texts. Source: RFC 8949."""
    parts = [part.encode() for pair in texts.items() for part in pair]
    return bytes([0xA0 + len(texts)]) + b"".join(bytes([0x78, len(part)]) + part for part in parts)


class Faults:
    """The faults to come, and the calls that they hit: (service, action)."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self.hits: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def replace(self, faults: list[dict[str, Any]]) -> None:
        """Forget all, and wait for these. Raise TypeError if one has an unknown member."""
        made = [Fault(**fault) for fault in faults]
        with self._lock:
            self._waiting, self.hits = made, []

    def take(self, service: str, action: str, caller: str = "") -> Fault | None:
        """The fault of this call, which is used up by it."""
        with self._lock:
            for fault in self._waiting:
                if fault.service not in ("", service) or fault.action not in action or fault.times <= 0:
                    continue
                if fault.caller not in caller:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                self.hits.append((service, action))
                return fault
        return None

    def shown(self) -> dict[str, Any]:
        """What is left, and what was hit."""
        with self._lock:
            return {"faults": [asdict(fault) for fault in self._waiting if fault.times > 0], "hits": self.hits}
