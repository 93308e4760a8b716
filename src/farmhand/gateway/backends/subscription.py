"""The operator's own plan, by one process of the unmodified `claude -p` for each turn. Off unless they turn it on.

docs/gateway.md#terms has the provider's terms. The token is the operator's own, from the variable that they name; the
CLI's environment is built from nothing, so no key and no other address reaches it. Only text goes in and comes out.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from farmhand.core.scratch import private_directory
from farmhand.gateway.backends import FAILED, Declined
from farmhand.gateway.backends.claude_process import ClaudeProcess, CliOrder
from farmhand.gateway.backends.plan_reply import TURN_S, SubscriptionReply
from farmhand.gateway.backends.plan_turns import PlanTurns
from farmhand.gateway.folding import FoldedTurn, fold
from farmhand.gateway.tables import PLAN_CONTEXT, SubscriptionTable
from farmhand.gateway.turn import BackendState, Reason, Turn
from farmhand.subscription import gate
from farmhand.subscription.command import command
from farmhand.subscription.environment import TOKEN, from_nothing

NAME = "subscription"
_PATH = "/usr/local/bin:/usr/bin:/bin"
log = logging.getLogger("farmhand-gateway")


class SubscriptionBackend:
    """The backend of `[subscription]`; see `Backend`. `turns` is the one of the service.

    Raise NotConfigured or Refused unless the CLI is there, new enough, and would use the login of `auth_env` and
    nothing else.
    """

    name = NAME

    def __init__(self, table: SubscriptionTable, turns: PlanTurns, environ: Mapping[str, str] = os.environ) -> None:
        self._table, self._turns = table, turns
        token = environ.get(table.auth_env, "")
        gate.check_token(f"[subscription] auth_env: {table.auth_env}", token)
        #: Tells one login from another, and nothing of it.
        self.account = blake2b(token.encode(), digest_size=8, person=b"farmhand-plan").hexdigest()
        self._program = gate.find_program(table.cli, environ.get("PATH"))
        self._stack = ExitStack()
        try:
            home = self._stack.enter_context(private_directory())
            for name in ("home", "tmp", "work"):
                (home / name).mkdir(mode=0o700)
            self._home = home
            path = f"{_PATH}:{Path(self._program).parent}"
            own = {"HOME": str(home / "home"), "CLAUDE_CONFIG_DIR": str(home / "home"), "PATH": path, TOKEN: token}
            self._own = own | {"TMPDIR": str(home / "tmp")}
            self._environ = environ
            gate.check_version(self._program, self._child())
            gate.check_plan(self._program, self._child())
            for model in table.models.values():
                command(self._program, model, home)
        except BaseException:
            self._stack.close()
            raise
        self._spare: ClaudeProcess | None = None
        self._spare_ends: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._retired = False

    def _child(self, max_tokens: int | None = None) -> dict[str, str]:
        return from_nothing(self._environ, self._own, timeout_s=TURN_S, max_tokens=max_tokens)

    def state(self) -> BackendState:
        """Implement `Backend`."""
        return BackendState(
            name=NAME,
            residency="subscription",
            closed=self._turns.closed(self._table),
            context=PLAN_CONTEXT,
            used=self._turns.used,
            model=", ".join(sorted(set(self._table.models.values()))),
        )

    def wake(self) -> None:
        """Implement `Backend`: only time opens a plan again."""

    def check(self, turn: Turn) -> FoldedTurn:
        """Return the turn for the CLI. Raise CannotCarry if it is more than text (H1)."""
        return fold(turn)

    def native(self, turn: Turn) -> bool:
        """Implement `Backend`."""
        return turn.dialect == "messages"

    async def count(self, turn: Turn) -> int | None:
        """Implement `Backend`: the CLI counts no tokens."""
        return None

    @asynccontextmanager
    async def answer(self, turn: Turn) -> AsyncIterator[SubscriptionReply]:
        """Implement `Backend`. It waits for the one place; leaving the context ends the CLI, with all it started."""
        asked = self.check(turn)
        self._open += 1
        process: ClaudeProcess | None = None
        entered = good = False
        try:
            await self._turns.enter(self._table)
            entered = True
            process = await self._process(self._order(turn, asked))
            reply = SubscriptionReply(process, turn, asked.omitted, self._turns, self._table)
            late = asyncio.get_running_loop().call_later(TURN_S, reply.expire)
            try:
                await process.ask(asked.text)
                asked = FoldedTurn("", "", None, asked.omitted)
                # The turn keeps its fields until then: another backend may have to answer it.
                await reply.begin()
                turn.release()
                yield reply
                good = not process.running
            finally:
                late.cancel()
        finally:
            if entered:
                self._turns.end()
            if process is not None:
                process.kill()
            task = asyncio.create_task(self._after(process, entered=entered, good=good))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _order(self, turn: Turn, asked: FoldedTurn) -> CliOrder:
        defaults = SubscriptionTable().models
        model = self._table.models.get(turn.work_class) or defaults[turn.work_class]
        return CliOrder(self._program, model, asked.system, asked.max_tokens)

    async def _process(self, order: CliOrder) -> ClaudeProcess:
        """Return the process that waits, if it was started for the same; a new one otherwise. Raise Declined."""
        spare, self._spare = self._spare, None
        if self._spare_ends is not None:
            self._spare_ends.cancel()
        if spare is not None:
            if spare.running and spare.order == order:
                return spare
            spare.kill()
            await spare.ended()
        try:
            return await ClaudeProcess.start(order, self._child(order.max_tokens), self._home)
        except OSError as error:
            raise Declined(Reason(FAILED, f"its CLI cannot be started: {error.strerror}")) from None

    async def _after(self, process: ClaudeProcess | None, *, entered: bool, good: bool) -> None:
        """Give the place away once the process is gone, and start one that waits for the next turn."""
        if process is not None:
            await process.ended()
        self._open -= 1
        wanted = self._table.warm_s and not self._retired and self._turns.idle(self._table)
        try:
            if good and process is not None and wanted:
                with suppress(Declined):
                    self._spare = await self._process(process.order)
                    ends = asyncio.get_running_loop().call_later(self._table.warm_s, self._end_spare)
                    self._spare_ends = ends
        finally:
            if entered:
                self._turns.leave()
        if self._retired:
            self.close()

    def _end_spare(self) -> None:
        spare, self._spare = self._spare, None
        if self._spare_ends is not None:
            self._spare_ends.cancel()
        if spare is not None:
            spare.kill()
            task = asyncio.create_task(self._reap(spare))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reap(self, process: ClaudeProcess) -> None:
        await process.ended()

    def close(self) -> None:
        """Take no turn any more. Those that are open go on, and then the files are removed."""
        self._retired = True
        self._end_spare()
        if not self._open:
            self._stack.close()

    async def closed(self) -> None:
        """Wait until nothing of it is left, after `close`."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
