"""The answer of one CLI process to one turn: passed on while it is written, and judged at its end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from farmhand.core.errors import FarmhandError
from farmhand.core.keys import redact
from farmhand.core.task import Usage
from farmhand.gateway.backends import FAILED, BackendError, Declined, TurnSpent
from farmhand.gateway.backends.claude_process import ClaudeProcess
from farmhand.gateway.backends.plan_turns import PlanTurns
from farmhand.gateway.dialects.cli_answer import CliAnswer
from farmhand.gateway.tables import SubscriptionTable
from farmhand.gateway.turn import Dialect, Reason, Turn
from farmhand.subscription.stream import CliRun

#: Seconds that a turn may take.
TURN_S = 600.0
#: What the provider says where a request would be extra usage, and there is none (anthropics/claude-code#45020).
_USED_UP = re.compile(r"out of extra usage", re.I)
#: What it says where no turn would draw on the plan any more (router-for-me/CLIProxyAPI#6004).
_ONLY_EXTRA = re.compile(r"draw from your extra usage", re.I)
_TOO_LONG = re.compile(r"(\d+) tokens \(limit (\d+)\)")


class SubscriptionReply:
    """The answer of one process to one turn; see `BackendReply`."""

    status = 200
    dialect: Dialect = "messages"

    def __init__(
        self, process: ClaudeProcess, turn: Turn, omitted: tuple[str, ...], turns: PlanTurns, table: SubscriptionTable
    ) -> None:
        self.headers: dict[str, str] = {}
        self.streamed = turn.streamed
        self.omitted = omitted
        self._process = process
        self._turns, self._table = turns, table
        self._run = CliRun()
        self._answer = CliAnswer(turn)
        self._begun: list[bytes] = []
        self._rest = self._read()
        self._late = False
        self._kind: object = None

    async def begin(self) -> None:
        """Wait until the model answers, so that a refusal keeps its status. Raise Declined or BackendError."""
        async for piece in self._rest:
            self._begun.append(piece)
            if self._answer.begun:
                return

    async def pieces(self) -> AsyncIterator[bytes]:
        """Implement `BackendReply`."""
        for piece in self._begun:
            yield piece
        try:
            async for piece in self._rest:
                yield piece
        except Declined as declined:
            raise BackendError(str(declined)) from None

    def spent(self) -> TurnSpent:
        """Implement `BackendReply`: the tokens, and how much of the plan is used. What that costs nobody knows."""
        counted = self._run.usage()
        usage = Usage(requests=1, **counted) if any(counted.values()) else self._answer.usage
        use = self._run.use
        terms = "overage" if use is not None and use.is_using_overage else ""
        if use is not None and use.most is not None:
            name, window = use.most
            terms = f"{terms} {name} {window.utilization:.2f}".strip()
        return TurnSpent(model=self._process.order.model, usage=usage, pico=None, terms=terms)

    def expire(self) -> None:
        """End a turn that takes too long."""
        self._late = True
        self._process.kill()

    async def _read(self) -> AsyncIterator[bytes]:
        """Yield the answer for the client while the CLI writes it, and its end once the CLI has ended well."""
        limited = False
        try:
            async for line in self._process.lines():
                if piece := self._take(line):
                    yield piece
                # After an answer that its limit has cut, the CLI would ask for the rest, up to three times. What the
                # plan has left comes before that.
                after = self._kind not in ("stream_event", "assistant")
                limited = self._answer.whole and self._answer.stop == "max_tokens" and after
                if limited or self._run.result:
                    break
                if self._run.again:
                    raise BackendError("the answer was cut on its way")
        except ValueError:
            raise BackendError("the subscription's CLI wrote a line of more than 64 MB") from None
        except FarmhandError as error:
            raise Declined(self._turns.refuse(Reason("credential", error.message))) from None
        if limited:
            self._process.kill()
        status = await self._process.ended()
        if self._late:
            raise BackendError(f"the turn did not end within {TURN_S:.0f} s", status=400, code="timeout")
        if not limited:
            self._check_end(status)
        whole = limited or not self._run.unread
        if not whole and self._answer.text.strip() != str(self._run.result.get("result") or "").strip():
            raise BackendError(
                "a line of the subscription's CLI could not be read, and a part of the answer is missing"
            )
        # Before the client can know it: its next turn may come at once.
        self._turns.end()
        yield self._answer.end()

    def _take(self, line: bytes) -> bytes:
        """Return what a line of the CLI has for the client. Raise Refused or BackendError."""
        value = self._run.take(line)
        self._kind = kind = value.get("type")
        if kind == "rate_limit_event" and self._run.use is not None:
            self._turns.note(self._run.use, self._table)
        if self._run.checked and kind == "system":
            self._process.forget()
        if kind != "stream_event":
            return b""
        if not self._run.checked:
            raise BackendError("the subscription's CLI answered before it said with what credential")
        return self._answer.take(value.get("event"))

    def _check_end(self, status: int | None) -> None:
        """Raise Declined or BackendError unless the run has ended well."""
        failure = self._run.failure(status, self._process.errors)
        if failure is None:
            return
        said = self._run.result
        code = said.get("api_error_status")
        code = code if isinstance(code, int) else 0
        if said.get("api_error") == "usage_limit_reached" or _USED_UP.search(str(said.get("result"))):
            raise Declined(self._turns.used_up(self._table))
        if _ONLY_EXTRA.search(str(said.get("result"))):
            words = "the provider bills such turns as extra usage and not to the plan; closed until a reload"
            raise Declined(self._turns.refuse(Reason("overage", words)))
        if code in (401, 403):
            words = (
                f"the login is not accepted (HTTP {code}); closed until a reload, or a restart with a new token:"
                " claude setup-token"
            )
            raise Declined(self._turns.refuse(Reason("login", words)))
        if code == 429:
            raise Declined(Reason("limited", "the provider takes no more requests for now"))
        words = " ".join(redact(str(said.get("result") or failure.message)).split())[:300]
        if said.get("terminal_reason") == "prompt_too_long":
            sizes = _TOO_LONG.search(words)
            words = f": {sizes[1]} tokens > {sizes[2]} maximum" if sizes else ""
            raise BackendError(f"prompt is too long{words}", status=400, code="context_length_exceeded")
        if not code and not self._answer.begun:
            raise Declined(Reason(FAILED, f"its CLI failed: {words}"))
        if 400 <= code < 500:
            raise BackendError(words, status=400, code="invalid_request")
        raise BackendError(words, status=503 if code == 529 else 502, code="subscription")
