"""A plan's windows, as the API tells them in the headers of every answer to a login.

Source: the header names that the claude CLI 2.1.330 reads, and what it made of them here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from tests.support.messages_api.errors import ApiError

_PREFIX = "anthropic-ratelimit-unified"
_Part = Annotated[float, msgspec.Meta(ge=0)]


class Windows(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How much of a plan is used: the part of the five-hour and of the weekly window, 1 for all of it.

    `resets_at` is a Unix time in seconds, of both. `overage`: what is used up goes on as paid extra usage; without it
    the request is refused.
    """

    five_hour: _Part = 0.0
    seven_day: _Part = 0.0
    resets_at: int = 0
    overage: bool = False

    @property
    def claim(self) -> Literal["five_hour", "seven_day"]:
        """The window that decides."""
        return "seven_day" if self.seven_day > self.five_hour else "five_hour"

    @property
    def used_up(self) -> bool:
        """Whether nothing of the plan is left."""
        return max(self.five_hour, self.seven_day) >= 1

    def headers(self) -> dict[str, str]:
        """The headers."""
        found = {
            "status": "rejected" if self.used_up else "allowed",
            "reset": str(self.resets_at),
            "representative-claim": self.claim,
            "fallback": "available",
            "5h-utilization": f"{self.five_hour:g}",
            "5h-reset": str(self.resets_at),
            "7d-utilization": f"{self.seven_day:g}",
            "7d-reset": str(self.resets_at),
            "overage-status": "allowed" if self.overage else "rejected",
        }
        if not self.overage:
            found["overage-disabled-reason"] = "overage_not_provisioned"
        elif self.used_up:
            found["overage-in-use"] = "true"
        return {f"{_PREFIX}-{name}": value for name, value in found.items()}

    def admit(self) -> None:
        """Refuse a request for which nothing is left."""
        if self.used_up and not self.overage:
            message = "This request would exceed your account's rate limit. Please try again later."
            raise ApiError(429, message, headers=self.headers())
