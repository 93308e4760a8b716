"""Acts out a plan: the real daemon, the real loopback API, clients, and all that goes wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.disk import Disk
from tests.chaos.plan import ATTEMPTS, Moment, Plan
from tests.chaos.story import Story, tables
from tests.support import clock
from tests.support.agent import KEY
from tests.support.forked import ForkedAgent
from tests.support.messages_api import MessagesApi
from tests.support.messages_api import Plan as BatchPlan
from tests.support.trap import STARTING, Trap

#: How long a moment waits for the requests that it comes after; there may be fewer.
_PATIENCE_S = 1.5
#: Silence of the API that counts as a fault: more than a busy machine makes by itself.
_IDLE_S = 4.0
#: Far more than it takes: only what hangs comes to it.
_DEADLINE_S = 180.0
_GONE = (OSError, aiohttp.ClientError, asyncio.TimeoutError)
_UNFINISHED = ("queued", "awaiting_key", "running")


async def play(plan: Plan, directory: Path) -> Story:
    """Run the plan to its end: every task is final, and every Message Batch is collected."""
    log = directory / "api.jsonl"
    api = MessagesApi(latency_ms=plan.latency_s * 1000, event_ms=plan.event_s * 1000, log_file=log)
    state = directory / "state"
    async with Disk(state, mount=plan.full_disk) as disk:
        async with api:
            api.batches.plan = BatchPlan(after_ms=plan.economy_ms)
            api.fault(*plan.faults)
            api.batch_fault(*plan.batch_faults)
            run = _Run(plan, api, directory, disk)
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    await run.go()
            except TimeoutError:
                raise AssertionError(f"seed {plan.seed} did not end: {await run.standing()}") from None
            finally:
                await run.agent.stop(signal.SIGTERM)
            for batch in api.batches.all():
                for line in map(json.loads, batch.lines()):
                    if line["result"]["type"] == "succeeded":
                        run.story.messages[line["custom_id"]] = line["result"]["message"]["id"]
        run.story.read(state / "ledger.db", log)
    run.story.agent_log = run.agent.log.read_text()
    return run.story


class _Run:
    def __init__(self, plan: Plan, api: MessagesApi, directory: Path, disk: Disk) -> None:
        self.plan = plan
        self.api = api
        self.disk = disk
        self.story = Story(plan)
        self.clock = clock.Clock(directory / "clock")
        self.agent = ForkedAgent(
            directory, api.url, slots_api=plan.slots, attempts=ATTEMPTS, idle_s=_IDLE_S, drain_s=0.3,
            economy_linger_s=0.05, economy_poll_s=0.2,
        )  # fmt: skip
        self.agent.clock = self.clock
        self.agent.trap = self.trap = Trap(directory / "trap")
        self._freeing: asyncio.Task[None] | None = None
        self._done = asyncio.Event()

    async def go(self) -> None:
        """Clients, the chaos, and who watches; then the end of all tasks."""
        await self._start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            submitting = group.create_task(self._submit_all())
            for moment in self.plan.moments:
                await self._until_asked(moment.after)
                await asyncio.sleep(moment.delay_s)
                await self._happen(moment)
            await submitting
            if self._freeing is not None:
                await self._freeing
            await self._end()
            self._done.set()
        self.story.charges = await self.agent.get("/v1/charges?limit=10000")
        self.story.finished = await self.agent.get("/v1/finished?limit=10000")

    async def standing(self) -> str:
        """Where it stands, for a failure's message."""
        try:
            page = await self.agent.get("/v1/tasks?limit=1000")
        except (*_GONE, AssertionError) as error:
            return f"{error!r}: {self.agent.log.read_text()[-2000:]}"
        open_ = [f"{task['id']} {task['state']}" for task in page["tasks"] if task["state"] in _UNFINISHED]
        return f"{', '.join(open_)}: {self.agent.log.read_text()[-2000:]}"

    # --- clients --------------------------------------------------------------------------------------------------

    async def _submit_all(self) -> None:
        for name, concurrency in self.plan.batches.items():
            await self._insist("PUT", f"/v1/batches/{name}", {"max_usd": None, "concurrency": concurrency})
        for start in range(0, len(self.plan.tasks), self.plan.portion):
            await self._submit(self.plan.tasks[start : start + self.plan.portion])

    async def _submit(self, tasks: list[dict[str, Any]]) -> None:
        await self._insist("POST", "/v1/tasks", {"tasks": tasks}, headers=KEY)

    async def _insist(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """As a client does: the same request again until there is an answer to it."""
        while True:
            try:
                async with asyncio.timeout(10):
                    status, answer = await self.agent.call(method, path, body=body, headers=headers)
            except _GONE:
                await asyncio.sleep(0.03)
                continue
            if status in (503, 507):
                await asyncio.sleep(0.05)
                continue
            assert status in (200, 404), answer
            return answer

    async def _watch(self) -> None:
        """Look at all tasks, again and again: what is shown once must be true for good."""
        while not self._done.is_set():
            await self._look()
            await asyncio.sleep(0.1)

    async def _look(self) -> bool:
        """See every task; whether all were seen."""
        try:
            status, page = await self.agent.call("GET", "/v1/tasks?limit=1000")
        except _GONE:
            return False
        if status != 200:
            return False
        for task in page["tasks"]:
            self.story.see(task)
        return True

    # --- what happens ---------------------------------------------------------------------------------------------

    async def _until_asked(self, number: int) -> None:
        for _ in range(round(_PATIENCE_S / 0.01)):
            asked = len(self.api.posts) + sum(len(batch.items) for batch in self.api.batches.all())
            if asked >= number:
                return
            await asyncio.sleep(0.01)

    async def _happen(self, moment: Moment) -> None:
        doers: dict[str, Callable[[Moment], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "full_disk": self._fill,
            "again": self._again,
            "cancel": self._cancel,
            "cancel_many": self._cancel,
            "cancel_batch": self._cancel_batch,
            "limit": self._limit,
            "trap": self._trap,
        }
        if moment.kind == "clock":
            self.clock.jump(moment.amount)
        else:
            await doers[moment.kind](moment)

    async def _kill(self, _moment: Moment) -> None:
        await self.agent.stop(signal.SIGKILL)
        await self._crashed()

    async def _trap(self, moment: Moment) -> None:
        """It dies in the middle of something: of its start after a crash, or of its work, if it comes to it."""
        [point] = moment.names
        self.trap.set(point)
        if point in STARTING:
            await self._kill(moment)
            return
        for _ in range(round(_PATIENCE_S / 0.01)):
            if not self.trap.path.exists():
                break
            await asyncio.sleep(0.01)
        if self.trap.unset():
            await self.agent.wait()
            await self._crashed()

    async def _stop(self, _moment: Moment) -> None:
        """As by systemd; what outlives the drain goes back."""
        await self.agent.stop(signal.SIGTERM)
        await self._crashed()

    async def _crashed(self) -> None:
        self.story.crashes += 1
        await self._start()

    async def _start(self) -> None:
        """As systemd does: again until it stays, for on a full disk it does not."""
        while True:
            try:
                await self.agent.start()
                break
            except AssertionError:
                if self.agent.dead_by == -signal.SIGKILL:
                    continue  # in a trap
                if self._freeing is None or "Traceback" in self.agent.log.read_text():
                    raise
                await self._freeing
                self._freeing = None
        await self._insist("PUT", "/v1/key", headers=KEY)

    async def _fill(self, moment: Moment) -> None:
        self.disk.fill(self.agent)

        async def free() -> None:
            await asyncio.sleep(moment.amount)
            self.disk.free(self.agent)

        self._freeing = asyncio.create_task(free())

    async def _again(self, _moment: Moment) -> None:
        for start in range(0, len(self.plan.tasks), 20):
            await self._submit(self.plan.tasks[start : start + 20])

    async def _cancel(self, moment: Moment) -> None:
        self.story.cancelled.update(moment.names)
        if len(moment.names) == 1:
            # Two who want the same at once.
            path = f"/v1/tasks/{moment.names[0]}"
            await asyncio.gather(self._insist("DELETE", path), self._insist("DELETE", path))
        else:
            await self._insist("POST", "/v1/tasks/cancel", {"ids": list(moment.names)})

    async def _cancel_batch(self, moment: Moment) -> None:
        self.story.cancelled.update(task["id"] for task in self.plan.tasks if task.get("batch") == moment.names[0])
        await self._insist("DELETE", f"/v1/batches/{moment.names[0]}")

    async def _limit(self, moment: Moment) -> None:
        await self._insist("PUT", f"/v1/batches/{moment.names[0]}", {"max_usd": None, "concurrency": 2})

    # --- the end --------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Wait until every task is final and every Message Batch is collected; a key that was refused comes again."""
        while True:
            status = await self._insist("GET", "/v1/status")
            if status["awaiting_key"]:
                await self._insist("PUT", "/v1/key", headers=KEY)
            open_ = sum(status[state] for state in _UNFINISHED)
            if not open_ and not self._at_provider():
                break
            await asyncio.sleep(0.05)
        while not await self._look():  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _at_provider(self) -> bool:
        if not self.plan.economy:
            return False
        ledger = tables(self.agent.directory / "state" / "ledger.db")
        return any(row["state"] != "ended" for row in ledger["provider_batch"])
