"""What answers with success and is not AWS: botocore takes a page of HTML, or nothing at all, for an empty answer.

So a secret "is not there", a list is empty, a write is done. Seen by others (aws/aws-cli#1679,
groundlight/python-sdk#28): the notice of a proxy, the login page of a network.
"""

from __future__ import annotations

from typing import Any

_PAGE = (b"<!doctype html", b"<html")
_JSON = frozenset({"json", "rest-json"})


def is_page(text: bytes) -> bool:
    """Return whether `text` begins as a page of HTML does."""
    return text.lstrip()[:20].lower().startswith(_PAGE)


def check_answer(operation_model: Any, response_dict: dict[str, Any], **_more: Any) -> None:
    """Raise botocore's ResponseParserError for an answer with success that AWS does not give. For `before-parse`."""
    if response_dict["status_code"] >= 300:  # botocore reads those, and tries again where that may help
        return
    body, kind = response_dict["body"], str(response_dict["headers"].get("content-type", ""))
    if not isinstance(body, bytes):  # an object of S3, which is still to be read
        if kind.startswith("text/html"):
            raise _error("a page of HTML")
        return
    if is_page(body):
        raise _error("a page of HTML")
    shape, service = operation_model.output_shape, operation_model.service_model
    if shape is None or "payload" in shape.serialization:
        return
    if all("location" in member.serialization for member in shape.members.values()):
        return
    if not body.strip():
        raise _error("an empty answer")
    protocol = getattr(service, "resolved_protocol", service.metadata.get("protocol"))
    if protocol in _JSON and not body.lstrip().startswith(b"{"):
        raise _error("no JSON")


def _error(what: str) -> Exception:
    from botocore.parsers import ResponseParserError

    error: Exception = ResponseParserError(what)
    return error
