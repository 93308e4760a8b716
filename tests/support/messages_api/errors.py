"""The API's refusals: status, error type, message. Source: the provider's "API errors" page, read 2026-11."""

from __future__ import annotations

from typing import Any

#: Error type by status; statuses that are not here are `invalid_request_error` (4xx) or `api_error` (5xx).
TYPES: dict[int, str] = {
    400: "invalid_request_error",
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

MESSAGES: dict[int, str] = {
    400: "Error",
    401: "invalid x-api-key",
    402: "There is an issue with your billing or payment information.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "Not found",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit of 50 requests per minute.",
    500: "Internal server error",
    504: "The request timed out",
    529: "Overloaded",
}


#: What an account without money is told: as a 400 `invalid_request_error`, so that only the message tells it.
#: Source: error bodies in public reports of the claude CLI, 2025-05 to 2026-08.
CREDIT = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)
USAGE_LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
#: Source: public reports of the claude CLI, "This organization has been disabled", 2025-07 to 2026-08.
DISABLED = "This organization has been disabled."
WORKSPACE_LIMIT = USAGE_LIMIT.replace("specified API", "specified workspace API")


class ApiError(Exception):
    """One refusal. `details` and `headers` go into the body's error object and the response.

    `raw` is sent in place of the JSON, as a gateway in between does.
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        type_: str = "",
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        raw: str | None = None,
    ) -> None:
        self.status = status
        self.message = message or MESSAGES.get(status, "Error")
        self.type = type_ or TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        self.details = details
        self.headers = headers or {}
        self.raw = raw
        super().__init__(f"{status} {self.type}: {self.message}")

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body as the API sends it."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return {"type": "error", "error": error, "request_id": request_id}


def bad(path: str, message: str) -> ApiError:
    """A 400 that names the field it is about."""
    return ApiError(400, f"{path}: {message}")
