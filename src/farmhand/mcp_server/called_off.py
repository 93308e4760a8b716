"""What becomes of a job whose call the client calls off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from farmhand.core.errors import FarmhandError

#: How long a job that is called off may take to end, hosts and all. Seconds.
_ENDS_S = 60.0


class StopUnless:
    """Has a job called off if the body is cancelled before `gone_on`."""

    closing = False

    @classmethod
    def session_ends(cls) -> None:
        """Stop nothing from now on: what is cancelled then nobody has called off, it goes on."""
        cls.closing = True

    def __init__(self, job_id: str, called_off: Callable[[str], Awaitable[None]]) -> None:
        self._id, self._called_off, self._gone_on = job_id, called_off, False

    async def __aenter__(self) -> StopUnless:
        return self

    def gone_on(self) -> None:
        """From now on the job is the session's: it has its id."""
        self._gone_on = True

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._gone_on and not StopUnless.closing:
            with anyio.move_on_after(_ENDS_S, shield=True), suppress(FarmhandError):
                await self._called_off(self._id)
