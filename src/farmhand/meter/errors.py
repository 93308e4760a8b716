"""What the Messages API says when it does not answer, in Farmhand's words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import aiohttp

from farmhand.core import billing_refusals
from farmhand.core.keys import redact
from farmhand.core.task import MODELS
from farmhand.meter import loose_json
from farmhand.meter.headroom import retry_after_s
from farmhand.meter.upstream import Unreachable, UpstreamError

#: Statuses below 500 that may pass; of 500 and above every one may. Source: the provider's SDKs, `_should_retry`.
_PASSING_STATUS = frozenset({408, 409, 429})
#: The same of an error inside an answer, which has no status.
_PASSING_CODES = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_MAX_MESSAGE = 500
_MAX_KIND = 60
#: Hints by error code; a table, since each is only text.
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
_STATUS_CODE = {
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
#: The codes that an error of the API can have; one that the provider has made up since is none of them.
KINDS = tuple(sorted({*(set(_HINTS) - {"budget"}), *_STATUS_CODE.values(), "unknown_model"}))
#: Refusals of the key itself or of the account behind it: every other request with that key meets the same.
_PARKS_KEY = frozenset({"authentication_error", *billing_refusals.HINTS})


class ApiError(Exception):
    """The API refused or failed. `retryable` says whether the same request may succeed later.

    `retry_after_s` is what the API asked for, if it did; `status` is 0 where no HTTP answer came. `passes` says that it
    is the API that cannot for the moment: no answer, or a refusal for its load or its own failure.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        retryable: bool = False,
        retry_after_s: float | None = None,
        passes: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.passes = passes or (code == "connection" and not status)
        self._hint = hint

    @property
    def hint(self) -> str:
        """What to do about it."""
        return self._hint or _HINTS.get(self.code, "")

    @property
    def parks_key(self) -> bool:
        """Whether the key was refused (401, 402, spend limit) and not the request: others on it had better wait."""
        return self.code in _PARKS_KEY


class UnknownModel(ApiError):
    """A model id that the API does not know (any more)."""

    def __init__(self, model: str, message: str) -> None:
        super().__init__("unknown_model", message, status=404)
        self.model = model

    @property
    def hint(self) -> str:
        """The nearest models that are known to work."""
        family = [name for name in MODELS if name in self.model]
        near = family or difflib.get_close_matches(self.model, [*MODELS, *MODELS.values()], n=1, cutoff=0.4)
        names = near or list(MODELS)
        return "try --model " + " or --model ".join(f"{n} ({MODELS[n]})" if n in MODELS else n for n in names)


def _detail(body: bytes) -> dict[str, Any]:
    try:
        error = loose_json.decode(body).get("error")
    except (ValueError, AttributeError):
        return {}
    return error if isinstance(error, dict) else {}


def may_pass(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the same request may succeed later, by an answer's status, or by `x-should-retry` where it says so."""
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status in _PASSING_STATUS or status >= 500


def problem_from_answer(
    status: int, body: bytes, *, model: str = "", headers: Mapping[str, str] = _NO_HEADERS
) -> ApiError:
    """The problem that an HTTP answer of `status` with `body` describes. Keys are redacted from its message.

    `headers`: names in lower case.
    """
    detail = _detail(body)
    kind = _kind(detail)
    message = _message(detail, f"the API answered HTTP {status}")
    if status == 404 and (kind == "not_found_error" or not kind) and "model" in message:
        return UnknownModel(model, f"the API does not know the model {model!r}: {message}")
    spent, hint = billing_refusals.refusal(status, detail)
    code = spent or _STATUS_CODE.get(status) or kind or "api_error"
    retryable = may_pass(status, headers) and code not in _PARKS_KEY
    return ApiError(
        code,
        message,
        # Who asked through the meter sees the same: the claude CLI sends a 400 again, with less of it each time.
        status=402 if spent and status == 400 else status,
        hint=hint,
        retryable=retryable,
        # One that is only said to pass, against its status, is tried a few times and not waited for.
        passes=retryable and may_pass(status, _NO_HEADERS),
        retry_after_s=retry_after_s(headers),
    )


def problem_from_event(event: dict[str, Any]) -> ApiError:
    """The problem that an `error` event inside a stream, or a result of a Message Batch, describes."""
    error = event.get("error")
    detail = error if isinstance(error, dict) else {}
    kind = _kind(detail) or "api_error"
    message = _message(detail, "the API ended the stream with an error")
    spent, hint = billing_refusals.refusal(0, detail)
    code = spent or ("invalid_request" if kind == "invalid_request_error" else kind)
    return ApiError(code, message, hint=hint, retryable=code in _PASSING_CODES)


def _kind(detail: dict[str, Any]) -> str:
    kind = detail.get("type")
    return " ".join(redact(kind).split())[:_MAX_KIND] if isinstance(kind, str) else ""


def _message(detail: dict[str, Any], without: str) -> str:
    return " ".join(redact(str(detail.get("message") or without)).split())[:_MAX_MESSAGE]


def connection_problem(error: Exception, when: str) -> ApiError:
    """The problem that an UpstreamError, an aiohttp.ClientError or a TimeoutError stands for: no answer, or a part."""
    if isinstance(error, aiohttp.ClientConnectorError | Unreachable):
        what = "the API could not be reached"
    elif isinstance(error, TimeoutError):
        what = "the API fell silent"
    else:
        what = "the connection to the API was cut"
    told = str(error) if isinstance(error, UpstreamError) else getattr(error, "strerror", None)
    return ApiError("connection", f"{what} {when}: {told or type(error).__name__}", retryable=True)
