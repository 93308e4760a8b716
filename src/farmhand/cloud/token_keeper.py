"""The access token of a container, renewed before its end by one thread, so that there is one exchange at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from farmhand.cloud.ending import ContainerEnds, StopClock, say
from farmhand.cloud.federation import AccessToken, ExchangeFailed
from farmhand.core.shard import EXIT_LEFT

#: Seconds to try for the first token, and for one in the place of a refused one.
PATIENCE_S = 60.0
#: Seconds between two tries, unless the API asks for more. Source: the backoff of the provider's SDK.
PAUSE_S = 5.0
#: A refusal may be a rule that is only just made: it is tried so often.
_REFUSALS = 2


class TokenKeeper:
    """Keeps a token of `exchange`. `give` gets each token but the first, when it is there; it must not raise.

    `obtain` starts it. Afterwards `failure` says why the container has to end: no token came in time.
    """

    def __init__(
        self,
        exchange: Callable[[], AccessToken],
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._exchange, self._clock, self._pause_s = exchange, clock, pause_s
        self.give: Callable[[str], None] = lambda _value: None
        self._token: AccessToken | None = None
        self._failed: ContainerEnds | None = None
        #: The token that the API has refused, which is to be replaced at once.
        self._stale = ""
        self._changed = threading.Condition()

    @property
    def value(self) -> str:
        """Return the token; "" before `obtain`."""
        return self._token.value if self._token is not None else ""

    @property
    def failure(self) -> ContainerEnds | None:
        """Return why there is no usable token any more, None while there is one."""
        token = self._token
        if token is None or (self._clock() < token.until and token.value != self._stale):
            return None
        return self._failed or ContainerEnds(EXIT_LEFT, "the access token ends, and no other one came in time")

    def obtain(self, clock: StopClock) -> str:
        """Return the first token. Raise ContainerEnds."""
        threading.Thread(target=self._keep, name="token", daemon=True).start()
        return self._await("", clock)

    def replace(self, refused: str, clock: StopClock) -> str:
        """Return a token in the place of `refused`, which the API does not take. Raise ContainerEnds."""
        with self._changed:
            self._stale = refused
            self._changed.notify_all()
        return self._await(refused, clock)

    def _await(self, other: str, clock: StopClock) -> str:
        """Wait for a token that is not `other`."""
        until = self._clock() + PATIENCE_S + self._pause_s
        while self._failed is None and self.value == other and self._clock() < until:
            if clock.asked:
                raise ContainerEnds(EXIT_LEFT, "SIGTERM before there was an access token")
            with self._changed:
                self._changed.wait(0.2)
        if self._failed is not None:
            raise self._failed
        if self.value == other:
            raise ContainerEnds(EXIT_LEFT, f"there is no access token after {PATIENCE_S:g} s")
        return self.value

    def _keep(self) -> None:
        while self._failed is None:
            with self._changed:
                token = self._token
                refused = token is not None and token.value == self._stale
                if token is not None and not refused and (left := token.renew_at - self._clock()) > 0:
                    self._changed.wait(left)
                    continue
            self._renew(PATIENCE_S if token is None or refused else token.until - self._clock())

    def _renew(self, within_s: float) -> None:
        """Exchange until there is a token; give up when no later try can help, or time is up."""
        until, refusals = self._clock() + within_s, 0
        while True:
            try:
                token = self._exchange()
                break
            except ExchangeFailed as error:
                refusals += error.code != EXIT_LEFT
                pause_s = max(self._pause_s, error.after_s)
                if not error.passing or refusals > _REFUSALS or self._clock() + pause_s > until:
                    self._end(ContainerEnds(error.code, str(error)))
                    return
                say(f"{error}: trying again in {pause_s:g} s")
            except ContainerEnds as end:
                self._end(end)
                return
            except Exception as error:
                self._end(ContainerEnds(EXIT_LEFT, f"a fault of the token exchange: {type(error).__name__}"))
                return
            time.sleep(pause_s)
        if self._token is not None:
            self.give(token.value)
        with self._changed:
            self._token = token
            self._changed.notify_all()

    def _end(self, why: ContainerEnds) -> None:
        with self._changed:
            self._failed = why
            self._changed.notify_all()
