"""What the Messages API says when it does not answer, in Farmhand's words."""

from __future__ import annotations

import difflib
from typing import Any

import aiohttp
import msgspec

from farmhand.meter.upstream import Unreachable, UpstreamError
from farmhand.task import MODELS
from farmhand.wire.keys import redact

#: Statuses that may pass. Source: the provider's error reference, and FACTS: 401, 402, 403, 413 are final.
RETRYABLE_STATUS = frozenset({408, 429, 500, 502, 503, 504, 529})
_MAX_MESSAGE = 500
#: Hints by error code; a table, since each is only text.
_HINTS = {
    "authentication_error": "the key was not accepted: check the key source, or rotate the key",
    "billing_error": "check the credit and the billing details of the API account",
    "permission_error": "this key may not use that model or feature",
    "spend_limit": "raise the spend limit of the API account, or wait until it resets",
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
_PARKS_KEY = frozenset({"authentication_error", "billing_error", "spend_limit"})


class ApiError(Exception):
    """The API refused or failed. `retryable` says whether the same request may succeed later.

    `retry_after_s` is what the API asked for, if it did; `status` is 0 where no HTTP answer came.
    """

    def __init__(
        self, code: str, message: str, *, status: int = 0, retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    @property
    def hint(self) -> str:
        """What to do about it."""
        return _HINTS.get(self.code, "")

    @property
    def passes(self) -> bool:
        """Whether it is the API that cannot for the moment: no answer, or a refusal for its load or its own failure."""
        return self.code == "connection" or (self.status in RETRYABLE_STATUS and not self.parks_key)

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
        error = msgspec.json.decode(body).get("error")
    except (msgspec.DecodeError, AttributeError, UnicodeDecodeError):
        return {}
    return error if isinstance(error, dict) else {}


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None


def problem_from_answer(status: int, body: bytes, *, model: str = "", retry_after: str | None = None) -> ApiError:
    """The problem that an HTTP answer of `status` with `body` describes. Keys are redacted from its message."""
    detail = _detail(body)
    kind = str(detail.get("type") or "")
    message = " ".join(redact(str(detail.get("message") or f"the API answered HTTP {status}")).split())[:_MAX_MESSAGE]
    if status == 404 and (kind == "not_found_error" or not kind) and "model" in message:
        return UnknownModel(model, f"the API does not know the model {model!r}: {message}")
    spent = "enforced_spend_limit_reached" in (detail.get("error_code"), _details_code(detail))
    code = "spend_limit" if spent else _STATUS_CODE.get(status, kind or "api_error")
    retryable = status in RETRYABLE_STATUS and not spent
    return ApiError(code, message, status=status, retryable=retryable, retry_after_s=_seconds(retry_after))


def _details_code(detail: dict[str, Any]) -> Any:
    nested = detail.get("details")
    return nested.get("error_code") if isinstance(nested, dict) else None


def problem_from_event(event: dict[str, Any]) -> ApiError:
    """The problem that an `error` event inside a stream describes."""
    error = event.get("error")
    detail = error if isinstance(error, dict) else {}
    kind = str(detail.get("type") or "api_error")
    message = " ".join(redact(str(detail.get("message") or "the API ended the stream with an error")).split())[
        :_MAX_MESSAGE
    ]
    code = "invalid_request" if kind == "invalid_request_error" else kind
    return ApiError(
        code, message, retryable=kind in {"overloaded_error", "api_error", "rate_limit_error", "timeout_error"}
    )


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
