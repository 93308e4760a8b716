"""Errors of the Messages API, mapped to Farmhand's error codes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from farmhand.core import billing_refusals
from farmhand.core.keys import redact
from farmhand.core.task import MODELS, FullBudget
from farmhand.meter import loose_json
from farmhand.meter.headroom import retry_after_s
from farmhand.meter.upstream import Unreachable, UpstreamError

#: Transient statuses below 500; all from 500 up are. Source: the provider's SDKs, `_should_retry`.
_PASSING_STATUS = frozenset({408, 409, 429})
#: Transient error types inside an answer, which has no status.
_PASSING_CODES = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
#: Statuses by which the API refuses a request for what is in it.
_OF_THE_REQUEST = frozenset({400, 413, 422})
_MAX_MESSAGE = 500
_MAX_KIND = 60
#: Hints by error code.
_HINTS = {
    "authentication_error": "the key was not accepted: check the key source, or rotate the key",
    **billing_refusals.HINTS,
    "permission_error": "this key may not use that model or feature",
    "rate_limit_error": "try again later, or run fewer tasks at once",
    "overloaded_error": "the API is overloaded: try again later",
    "api_error": "the API had an internal error: try again later",
    "timeout_error": "the API took too long: try again later",
    "budget": "raise the budget that is named (--max-usd of a task or a batch, budget_day_usd of a host)",
    "request_too_large": "make the prompt smaller",
    "connection": "check the farm host's network and jada_agent_upstream_url",
}
STATUS_CODE = {
    400: "invalid_request",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
#: The known codes of API errors. Codes that the provider adds later are not in it.
KINDS = tuple(sorted({*(set(_HINTS) - {"budget"}), *STATUS_CODE.values(), "unknown_model"}))
#: Refusals of the key or its account: every other request with that key would be refused too.
_REJECTS_KEY = frozenset({"authentication_error", *billing_refusals.HINTS})


class ApiError(Exception):
    """The API refused the request or failed. `retryable`: the same request may succeed later.

    `retry_after_s` is the API's own delay, if it gave one. `status` is 0 if there was no HTTP answer. `is_transient`:
    the API is unavailable for now, that is, it did not answer or refused because of its load or its own failure.
    `body` is the API's own refusal of the request as it came, without keys: clients act on its wording. b"": none.
    `full` is the budget that had no room, if it was that.
    """

    full: FullBudget | None = None

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        retryable: bool = False,
        retry_after_s: float | None = None,
        is_transient: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint or _HINTS.get(code, "")
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.is_transient = is_transient or (code == "connection" and not status)
        self.body = b""

    @property
    def rejects_key(self) -> bool:
        """Return whether the key, not the request, was refused (401, 402, spend limit); then others should wait."""
        return self.code in _REJECTS_KEY


def _unknown_model(model: str, message: str) -> ApiError:
    """Return the error for a model id that the API does not know, with the closest known ones as its hint."""
    family = [name for name in MODELS if name in model]
    names = family or difflib.get_close_matches(model, [*MODELS, *MODELS.values()], n=1, cutoff=0.4) or list(MODELS)
    hint = "try --model " + " or --model ".join(f"{n} ({MODELS[n]})" if n in MODELS else n for n in names)
    what = f"the API does not know the model {model!r}: {message}"
    return ApiError("unknown_model", what, status=404, hint=hint)


def may_pass(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a retry may succeed, by `x-should-retry` if it is given, otherwise by the status."""
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status in _PASSING_STATUS or status >= 500


def problem_from_answer(
    status: int, body: bytes, *, model: str = "", headers: Mapping[str, str] = _NO_HEADERS
) -> ApiError:
    """Return the error that an HTTP answer of `status` with `body` describes. Keys are redacted from its message.

    `headers`: names in lower case.
    """
    try:
        error = loose_json.decode(body).get("error")
    except (ValueError, AttributeError):
        error = None
    detail, kind, message = _told(error, f"the API answered HTTP {status}")
    if status == 404 and (kind == "not_found_error" or not kind) and "model" in message:
        return _unknown_model(model, message)
    spent, hint = billing_refusals.refusal(status, detail)
    code = spent or STATUS_CODE.get(status) or kind or "api_error"
    retryable = may_pass(status, headers) and code not in _REJECTS_KEY
    problem = ApiError(
        code,
        message,
        # The meter's clients see this status too: after a 400 the claude CLI resends, each time with less content.
        status=402 if spent and status == 400 else status,
        hint=hint,
        retryable=retryable,
        # An answer that is transient only by `x-should-retry`, against its status, gets a few retries but no waiting.
        is_transient=retryable and may_pass(status, _NO_HEADERS),
        retry_after_s=retry_after_s(headers),
    )
    if status in _OF_THE_REQUEST and not spent:
        problem.body = _without_keys(body)
    return problem


def _without_keys(body: bytes) -> bytes:
    text = body.decode("utf-8", "surrogateescape")
    clean = redact(text)
    return body if clean == text else clean.encode("utf-8", "surrogateescape")


def problem_from_event(event: dict[str, Any]) -> ApiError:
    """Return the error that an `error` event of a stream, or a result of a Message Batch, describes."""
    detail, kind, message = _told(event.get("error"), "the API ended the stream with an error")
    spent, hint = billing_refusals.refusal(0, detail)
    code = spent or ("invalid_request" if kind == "invalid_request_error" else kind or "api_error")
    return ApiError(code, message, hint=hint, retryable=code in _PASSING_CODES)


def _told(error: Any, without: str) -> tuple[dict[str, Any], str, str]:
    """Return an `error` object, its type ("" for none), and its message, or `without`; keys are redacted."""
    detail = error if isinstance(error, dict) else {}
    kind = detail.get("type")
    kind = " ".join(redact(kind).split())[:_MAX_KIND] if isinstance(kind, str) else ""
    return detail, kind, " ".join(redact(str(detail.get("message") or without)).split())[:_MAX_MESSAGE]


def connection_problem(error: Exception, when: str) -> ApiError:
    """Return the error for an UpstreamError or TimeoutError: no answer, or a part of one."""
    if isinstance(error, Unreachable):
        what = "the API could not be reached"
    elif isinstance(error, TimeoutError):
        what = "the API fell silent"
    else:
        what = "the connection to the API was cut"
    told = str(error) if isinstance(error, UpstreamError) else type(error).__name__
    return ApiError("connection", f"{what} {when}: {told}", retryable=True)
